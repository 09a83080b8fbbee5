"""An ensemble: trained networks whose mean posterior one network learns, beside the labels.

Networks trained in similar ways make different mistakes, so their mean makes fewer; one that learns from the mean
(Hinton et al., "Distilling the Knowledge in a Neural Network", 2015) keeps much of that at no cost when it runs. The
ensemble computes its posteriors once per example, before the time shift, gain and masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from streamkws.errors import ConfigError
from streamkws.model import ModelConfig
from streamkws.training.augment import at_positions
from streamkws.training.checkpoint import is_model, latest_checkpoint, load_network, network_of, read_f32
from streamkws.training.network import KeywordNetwork


class Ensemble:
    """Trained networks with the same keywords, front end and stride; their weights stay as they are.

    Raises ConfigError where there is no network.
    """

    def __init__(self, members: Sequence[KeywordNetwork]) -> None:
        if not members:
            raise ConfigError("expected an ensemble of at least one network, got none")
        self.members = [member.eval().requires_grad_(False) for member in members]

    @classmethod
    def load(cls, places: Sequence[str | Path], learner: ModelConfig) -> Ensemble:
        """Read the networks from run folders (their latest checkpoints), checkpoints or f32 model files.

        learner: the configuration of the network that will learn from them.
        Raises ConfigError where a file cannot be read, or a network's keywords, front end or stride are not the
        learner's.
        """
        members = []
        for place in places:
            path = latest_checkpoint(place)
            is_file = is_model(str(place))
            member = network_of(read_f32(str(place), "training.ensemble")) if is_file else load_network(path)
            for name in ("keywords", "frontend", "frame_stride"):
                wanted, found = getattr(learner, name), getattr(member.config, name)
                if found != wanted:
                    raise ConfigError(f"cannot learn from {path}: expected {name} to be {wanted!r}, got {found!r}")
            members.append(member)
        return cls(members)

    def posteriors(self, features: npt.NDArray[np.floating], bfloat16: bool = False) -> npt.NDArray[np.float16]:
        """(B, T, F) log-mel to (B, T, K) float16: the mean of the networks' posteriors at every frame.

        They are interpolated between the frames that end a step. bfloat16: whether products are computed in it.
        """
        inputs = torch.from_numpy(features.astype(np.float32))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = [member(inputs)[:, :, : len(member.config.keywords)].float() for member in self.members]
        steps = torch.sigmoid(torch.stack(logits)).mean(0).numpy()
        stride = self.members[0].config.frame_stride
        positions = np.clip((np.arange(features.shape[1]) + 1) / stride - 1, 0, steps.shape[1] - 1)
        return at_positions(steps, np.tile(positions, (len(steps), 1))).astype(np.float16)


def ensemble_loss(logits: Tensor, posteriors: Tensor, right: Tensor) -> Tensor:
    """Kullback-Leibler divergence of a network's posteriors from an ensemble's, summed over keywords, mean over steps.

    logits: (B, S, K) float32, the network's. posteriors: (B, S, K) float32 in 0..1, the ensemble's. right: (B, K) bool,
    the keywords of an example that count; the others are 0.
    """
    entropy = torch.special.entr(posteriors) + torch.special.entr(1 - posteriors)
    cross = torch.nn.functional.binary_cross_entropy_with_logits(logits, posteriors, reduction="none")
    loss: Tensor = ((cross - entropy) * right[:, None]).sum(2).mean()
    return loss
