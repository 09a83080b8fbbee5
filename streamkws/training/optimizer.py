"""A step of training: the optimizer, the learning rate, the average of the weights, and when quantization sets in."""

from __future__ import annotations

import copy
import math

import torch

from streamkws.training.fake_quant import QuantizationConfig
from streamkws.training.network import KeywordNetwork
from streamkws.training.recipe import TrainingConfig


def adamw(network: KeywordNetwork, settings: TrainingConfig) -> torch.optim.AdamW:
    """The optimizer; weight decay is for matrices only."""
    return torch.optim.AdamW(
        [
            {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
    )


def optimizer_step(
    network: KeywordNetwork, optimizer: torch.optim.AdamW, loss: torch.Tensor, rate: float, gradient_clip: float
) -> None:
    """One step of gradient descent at a learning rate, the gradient's norm limited to gradient_clip."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), gradient_clip)
    optimizer.step()


def learning_rate(settings: TrainingConfig, step: int, completed: float) -> float:
    """Warmed up linearly, then a cosine down to learning_rate_end. completed: 0..1, how far training is."""
    warmed = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    share = 0.5 * (1 + math.cos(math.pi * completed))
    return warmed * (settings.learning_rate_end + (settings.learning_rate - settings.learning_rate_end) * share)


class ExponentialMovingAverage:
    """Exponential moving average of a network's weights and batch-normalization statistics."""

    def __init__(self, network: KeywordNetwork) -> None:
        self.network = copy.deepcopy(network).eval()
        pairs = zip(self.network.state_dict().values(), network.state_dict().values(), strict=True)
        self.pairs = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]

    def update(self, decay: float) -> None:
        """Move by 1 - decay towards the network."""
        with torch.no_grad():
            torch._foreach_lerp_([mine for mine, _ in self.pairs], [theirs for _, theirs in self.pairs], 1 - decay)


def warmed_decay(decay: float, n_steps: int) -> float:
    """The decay of an average after n_steps steps: less at first, so that it soon forgets the initial weights."""
    return min(decay, (1 + n_steps) / (10 + n_steps))


class QuantizationSchedule:
    """What [quantization] does to networks as training goes on; without that section, nothing.

    The state follows from how far training is alone, so that a resumed run continues like the uninterrupted one.
    final: whether the networks compute as the model that will be written.
    """

    def __init__(self, quantization: QuantizationConfig | None, networks: tuple[KeywordNetwork, ...]) -> None:
        self.quantization, self.networks = quantization, networks
        self.final, self.frozen = quantization is None, False
        if quantization is not None:
            for network in networks:
                network.quantize(False)

    def follow(self, completed: float) -> list[str]:
        """Bring the networks to where training is, completed of 0..1; returns a line for a person per change."""
        lines: list[str] = []
        if self.quantization is None:
            return lines
        if not self.final and completed >= self.quantization.start_share:
            for network in self.networks:
                network.quantize(True)
            self.final = True
            lines.append(f"quantized from here on: {self.networks[0].config.bits}")
        if not self.frozen and completed >= self.quantization.freeze_share:
            for network in self.networks:
                network.freeze()
            self.frozen = True
            lines.append("batch normalization keeps its statistics from here on")
        return lines
