"""listen: detections by callback and by async for are those of detect."""

import asyncio
import logging
import threading

import numpy as np
import pytest
from conftest import speechlike

from streamkws import AudioError, ConfigError, detect, listen

BLOCKS = 20


@pytest.fixture(scope="module")
def samples():
    return speechlike(60000)


def blocks(samples):
    return np.array_split(samples, BLOCKS)


class Endless:
    """Blocks until it is let go; counts them."""

    def __init__(self, samples):
        self.samples = samples
        self.n_blocks = 0

    def __iter__(self):
        while True:
            self.n_blocks += 1
            yield self.samples


def test_a_callback_gets_what_detect_gives(model, samples):
    hits = []
    with listen(blocks(samples), model, hits.append) as listener:
        listener.join()
    assert hits == list(detect(samples, model))
    assert hits


def test_async_for_gets_what_detect_gives(model, samples):
    async def hear():
        return [hit async for hit in listen(blocks(samples), model, thresholds=0.7, keywords=["snowboy"])]

    assert asyncio.run(hear()) == list(detect(samples, model, 0.7, ["snowboy"]))


def test_the_loop_stays_free_while_a_source_keeps_the_listener_waiting(model, samples):
    release = threading.Event()

    def waiting():
        assert release.wait(10)  # set by the loop that waits for the detections
        yield samples

    async def hear():
        asyncio.get_running_loop().call_later(0.05, release.set)
        return [hit async for hit in listen(waiting(), model)]

    assert asyncio.run(hear()) == list(detect(samples, model))


def test_breaking_off_stops_the_thread(model, samples):
    source = Endless(samples)

    async def first():
        async for hit in listen(source, model):
            return hit

    assert asyncio.run(first()) is not None
    for thread in [one for one in threading.enumerate() if one.name == "streamkws listener"]:
        thread.join(5)
        assert not thread.is_alive()


def test_closing_stops_the_thread_and_leaves_the_source(model, samples):
    source = Endless(samples[:1600])
    with listen(source, model, lambda hit: None) as listener:
        while source.n_blocks < 3:
            pass
        listener.close()
        heard = source.n_blocks
    assert source.n_blocks == heard


def test_the_callback_can_ask_for_the_audio(model, samples):
    pcm = (samples * 32767).astype(np.int16)
    stretches = []

    def keep(hit):
        stretches.append((hit, listener.audio(hit.start - 0.1, hit.end)))

    listener = listen(blocks(pcm), model, keep, history_s=5)
    with listener:
        listener.join()
    assert stretches
    for hit, audio in stretches:
        first, stop = max(0, round((hit.start - 0.1) * 16000)), round(hit.end * 16000)
        assert np.array_equal(audio, pcm[first:stop])


def test_what_the_source_raises_comes_out(model, samples):
    def broken():
        yield samples
        raise AudioError("expected a cable, got none")

    hits = []
    with pytest.raises(AudioError, match="expected a cable"), listen(broken(), model, hits.append) as listener:
        listener.join()
    assert hits  # what was heard before is not lost

    async def hear():
        async for hit in listen(broken(), model):
            hits.append(hit)

    with pytest.raises(AudioError, match="expected a cable"):
        asyncio.run(hear())
    with pytest.raises(AudioError, match="expected a cable"), listen(broken(), model, hits.append) as listener:
        listener._thread.join()  # nobody asked; leaving the with statement tells


def test_a_callback_can_mute_the_listener(model, samples):
    hits = []

    def first(hit):
        hits.append(hit)
        listener.mute()

    pieces = np.array_split(samples, len(samples) // 160)
    listener = listen(pieces, model, first)  # which the callback knows before the with statement gives it
    with listener:
        listener.join()
    everything = list(detect(samples, model))
    assert 1 <= len(hits) < len(everything) and hits == everything[: len(hits)]  # those of one block, and no more


def test_a_failing_callback_is_logged_and_the_next_is_called(model, samples, caplog):
    called = []

    def fail(hit):
        called.append(hit)
        raise ValueError("no lamp")

    with caplog.at_level(logging.ERROR, "streamkws"), listen(samples, model, fail) as listener:
        listener.join()
    assert called == list(detect(samples, model))
    assert len(caplog.records) == len(called)
    assert "on_detection failed" in caplog.text and "no lamp" in caplog.text


def test_wrong_use_says_so(model, samples):
    with pytest.raises(ConfigError, match="expected on_detection"), listen(samples, model):
        pass

    async def both():
        async for _ in listen(samples, model, print):
            pass

    with pytest.raises(ConfigError, match="got both"):
        asyncio.run(both())
    with listen(samples, model, lambda hit: None) as listener:
        listener.join()
    with pytest.raises(ConfigError, match="listened already"), listener:
        pass
    with pytest.raises(ConfigError, match="unknown keyword"):
        listen(samples, model, keywords=["hal"])
