"""The pool of examples, and the batches drawn from it."""

import math

import numpy as np
import pytest

from streamkws.training.augment import AugmentConfig
from streamkws.training.blocks import Block
from streamkws.training.pool import Pool
from streamkws.training.producer import BLOCK
from streamkws.training.recipe import TrainingConfig


def block(first, n_frames=28):
    """A block of examples whose features are their numbers."""
    numbers = np.arange(first, first + BLOCK)
    features = np.array(np.broadcast_to(numbers[:, None, None], (BLOCK, n_frames, 4)), dtype=np.float32)
    words = np.full((BLOCK, 2), 9, np.int16)
    embeddings, ends = np.zeros((BLOCK, 2, 96), np.float16), np.full((BLOCK, 2), 12, np.int16)
    return Block(features, np.ones((BLOCK, 2), np.int8), words, words + 5, embeddings, ends)


def filled_pool(step, config, augmentation):
    pool = Pool(config, augmentation)
    pool.n_made = pool.first(step)
    while pool.n_made < pool.needed(step):
        pool.add(block(pool.n_made))
    return pool


def test_a_batch_depends_on_the_step_alone():
    config = TrainingConfig(batch=16, pool=96, reuse=2.0)
    augmentation = AugmentConfig(n_time_masks=0, n_frequency_masks=0, gain_jitter_db=0.0)
    fill = np.zeros(4, np.float32)
    going = filled_pool(0, config, augmentation)
    for step in range(60):
        while going.n_made < going.needed(step):
            going.add(block(going.n_made))
        batch = going.batch(step, fill, -20.0)
        numbers = batch[0][:, 0, 0]
        assert going.first(step) <= numbers.min() and numbers.max() < going.needed(step)
    restarted = filled_pool(59, config, augmentation)
    for mine, theirs in zip(restarted.batch(59, fill, -20.0), batch, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert batch[0].shape == (16, 20, 4)


def test_a_batch_is_shifted_with_its_labels():
    config, augmentation = TrainingConfig(batch=64, pool=96), AugmentConfig(n_time_masks=0, n_frequency_masks=0)
    pool = filled_pool(0, config, augmentation)
    pool.arrays[0][:] = np.arange(28)[None, :, None]
    features, _, onset, first, _, ends, _ = pool.batch(0, np.zeros(4, np.float32), -20.0)
    shifts = 9 - onset[:, 0]
    np.testing.assert_array_equal(ends[:, 0], 12 - shifts)
    assert set(shifts) == set(range(9))
    np.testing.assert_array_equal(first, onset + 5)
    jitter = features[:, 0, 0] - shifts
    assert np.abs(jitter).max() <= 3 * math.log(10) / 10 + 1e-3 and jitter.std() > 0.2


class Numbers:
    """An ensemble whose posteriors are the examples' first band, over a hundred."""

    def posteriors(self, features, bfloat16):
        assert not bfloat16
        return np.repeat(features[:, :, :1] / 100, 2, axis=2).astype(np.float16)


@pytest.mark.parametrize("tempo_jitter", [0.0, 0.2])
def test_an_ensembles_posteriors_move_with_the_features(tempo_jitter):
    augmentation = AugmentConfig(n_time_masks=0, n_frequency_masks=0, gain_jitter_db=0.0, tempo_jitter=tempo_jitter)
    pool = Pool(TrainingConfig(batch=16, pool=96), augmentation, ensemble=Numbers())
    while pool.n_made < pool.needed(0):
        made = block(pool.n_made)
        made.features[:] = np.arange(28)[None, :, None]
        pool.add(made)
    batch = pool.batch(0, np.zeros(4, np.float32), -20.0)
    assert batch.posteriors.shape == (16, 20, 2) and len(set(batch.features[:, 0, 0])) > 3
    np.testing.assert_allclose(batch.posteriors[:, :, 1], batch.features[:, :, 0] / 100, atol=2e-4)


def test_hard_examples_are_drawn_more_often():
    config = TrainingConfig(batch=64, pool=96, hard_share=0.5)
    augmentation = AugmentConfig(n_time_masks=0, n_frequency_masks=0, gain_jitter_db=0.0)
    pool = filled_pool(0, config, augmentation)
    pool.difficulty[:] = 0.001
    pool.difficulty[40] = 1.0
    numbers = pool.batch(0, np.zeros(4, np.float32), -20.0)[0][:, 0, 0]
    assert 28 <= (numbers[:32] == 40).sum() <= 32 and (numbers[32:] == 40).sum() < 5
    np.testing.assert_array_equal(pool.slots, numbers)
    while pool.n_made <= pool.capacity + 40:
        pool.add(block(pool.n_made))
    assert pool.difficulty[40] == 1.0 and pool.difficulty[8] == 1.0  # new examples count as one


def test_another_tempo_moves_the_labels_with_the_sound():
    config = TrainingConfig(batch=64, pool=96)
    augmentation = AugmentConfig(
        n_time_masks=0, n_frequency_masks=0, gain_jitter_db=0, shift_frames=0, tempo_jitter=0.3
    )
    pool = filled_pool(0, config, augmentation)
    pool.arrays[0][:] = np.arange(28)[None, :, None]
    features, _, onset, first, _, ends, _ = pool.batch(0, np.zeros(4, np.float32), -20.0)
    frames = features[:, :, 0]  # which frame is heard when
    assert frames.std(0).max() > 0.5
    for labels, sounded in ((onset, 9), (first, 14), (ends, 12)):
        at = np.take_along_axis(frames, labels[:, :1].astype(int), 1)[:, 0]
        before = np.take_along_axis(frames, labels[:, :1].astype(int) - 1, 1)[:, 0]
        assert ((before < sounded) & (sounded <= at)).all()
