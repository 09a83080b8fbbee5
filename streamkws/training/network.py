"""KeywordNetwork: the torch twin of Model, trained in float32 with batch normalization."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from streamkws.errors import ConfigError
from streamkws.frontend import FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.model import FloatWeights, ModelConfig
from streamkws.smoother import SmootherConfig


class CausalLayer(nn.Module):
    """One LayerConfig: relu(batch_norm(conv(x)) (+ x)); the last layer of a network is conv(x) + bias.

    stride: outputs are made for inputs stride-1, 2*stride-1, ... only.
    """

    def __init__(self, config: LayerConfig, stride: int = 1, last: bool = False) -> None:
        super().__init__()
        self.config = config
        self.stride = stride
        self.padding = (config.taps - 1) * config.dilation - (stride - 1)
        self.conv = nn.Conv1d(
            config.n_inputs, config.n_outputs, config.taps, stride=stride, dilation=config.dilation, bias=last
        )
        self.norm = None if last else nn.BatchNorm1d(config.n_outputs)
        with torch.no_grad():
            nn.init.kaiming_normal_(self.conv.weight, nonlinearity="linear" if last else "relu")
            if self.conv.bias is not None:
                self.conv.bias.fill_(-2.0)  # keywords are rare: begin below one half
            if self.norm is not None and config.residual:
                self.norm.weight.fill_(0.5)  # a residual sum of many layers starts near the identity

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, T) float32 to (B, O, T // stride) float32; a last layer gives logits."""
        y: Tensor = self.conv(nn.functional.pad(x, (self.padding, 0)))
        if self.norm is None:
            return y
        y = self.norm(y)
        if self.config.residual:
            y = y + x[:, :, self.stride - 1 :: self.stride]
        return torch.relu(y) if self.config.activation == "relu" else y

    def folded(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Weights (O, taps, I) and biases (O,), float32, with the batch normalization folded in."""
        weight = self.conv.weight.detach().double()
        if self.norm is None:
            assert self.conv.bias is not None
            bias = self.conv.bias.detach().double()
        else:
            assert self.norm.running_var is not None and self.norm.running_mean is not None
            scale = self.norm.weight.detach().double() / torch.sqrt(self.norm.running_var.double() + self.norm.eps)
            bias = self.norm.bias.detach().double() - scale * self.norm.running_mean.double()
            weight = weight * scale[:, None, None]
        return (
            np.ascontiguousarray(weight.permute(0, 2, 1).numpy().astype(np.float32)),
            bias.numpy().astype(np.float32),
        )


class KeywordNetwork(nn.Module):
    """ModelConfig's layers, with n_auxiliary more outputs after the keywords while training.

    The input is the raw log-mel; its mean and scale are part of the network.
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: ModelConfig, n_auxiliary: int = 0) -> None:
        super().__init__()
        layers = list(config.layers)
        if layers[-1].activation != "sigmoid" or layers[-1].n_outputs != len(config.keywords):
            raise ConfigError("expected a last layer with a sigmoid output per keyword")
        if layers[-1].residual:
            raise ConfigError("expected a last layer that is not residual")
        self.config = config
        self.n_auxiliary = n_auxiliary
        layers[-1] = replace(layers[-1], n_outputs=len(config.keywords) + n_auxiliary)
        self.layers = nn.ModuleList(
            CausalLayer(layer, config.frame_stride if index == 0 else 1, last=index == len(layers) - 1)
            for index, layer in enumerate(layers)
        )
        self.register_buffer("feature_mean", torch.zeros(config.frontend.n_mels))
        self.register_buffer("feature_scale", torch.ones(config.frontend.n_mels))

    def set_features(self, mean: npt.NDArray[np.float32], scale: npt.NDArray[np.float32]) -> None:
        """Set the input's normalization, (F,) float32 each."""
        self.feature_mean.copy_(torch.from_numpy(mean))
        self.feature_scale.copy_(torch.from_numpy(scale))

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, F) float32 log-mel to (B, S, K + n_auxiliary) float32 logits, S = T // frame_stride."""
        x = ((features - self.feature_mean) * self.feature_scale).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return x.transpose(1, 2)

    def to_float_weights(self) -> FloatWeights:
        """The weights as the runtime uses them: batch normalization folded in, auxiliary outputs dropped."""
        folded = [layer.folded() for layer in self.layers if isinstance(layer, CausalLayer)]
        n_keywords = len(self.config.keywords)
        weights = [weight for weight, _ in folded]
        biases = [bias for _, bias in folded]
        weights[-1] = np.ascontiguousarray(weights[-1][:n_keywords])
        biases[-1] = np.ascontiguousarray(biases[-1][:n_keywords])
        return FloatWeights(
            feature_mean=self.feature_mean.numpy().copy(),
            feature_scale=self.feature_scale.numpy().copy(),
            weights=tuple(weights),
            biases=tuple(biases),
        )


def config_to_json(config: ModelConfig) -> str:
    """A ModelConfig as text, for a checkpoint."""
    return json.dumps(asdict(config))


def config_from_json(text: str) -> ModelConfig:
    """The ModelConfig that config_to_json wrote."""
    entries: dict[str, Any] = json.loads(text)
    return ModelConfig(
        keywords=tuple(entries["keywords"]),
        layers=tuple(LayerConfig(**layer) for layer in entries["layers"]),
        frontend=FrontEndConfig(**entries["frontend"]),
        smoother=SmootherConfig(**entries["smoother"]),
        frame_stride=entries["frame_stride"],
        thresholds=entries["thresholds"],
        durations_s=entries["durations_s"],
        provenance=entries["provenance"],
    )


def load_network(checkpoint: str | Path) -> KeywordNetwork:
    """The network of a checkpoint (its averaged weights), ready for use.

    Raises ConfigError where the file is missing, damaged or no checkpoint.
    """
    path = Path(checkpoint)
    if not path.is_file():
        raise ConfigError(f"expected a checkpoint, found no file {path}")
    try:
        entries = torch.load(path, map_location="cpu", weights_only=True)
        network = KeywordNetwork(config_from_json(entries["model_config"]), entries["n_auxiliary"])
        network.load_state_dict(entries["average"])
    except Exception as error:  # torch.load raises whatever pickle, zip and the tensors inside raise
        raise ConfigError(f"expected a checkpoint of this trainer, {path} is damaged or another file") from error
    return network.eval()
