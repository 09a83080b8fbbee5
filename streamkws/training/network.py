"""KeywordNetwork: Model in torch, with batch normalization, in float32 or with fake quantization."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from streamkws.errors import ConfigError
from streamkws.layers import Layer, LayerConfig
from streamkws.model import FloatWeights, Model, ModelConfig
from streamkws.training.fake_quant import QuantizationConfig, StaticRange, fake_quantize, fake_quantize_weights


class CausalLayer(nn.Module):
    """One LayerConfig: relu(batch_norm(conv(x)) (+ x)); the last layer of a network is conv(x) + bias.

    Its input vectors and its weights are quantized to the LayerConfig's bits while `quantizing` is set. While it
    trains, the raw weights are: batch normalization scales a whole column, and a column's codes do not change with its
    scale. Evaluated or frozen, it computes with the folded weights, as the runtime does.

    stride: outputs are made for inputs stride-1, 2*stride-1, ... only.
    last: a last layer has a bias instead of batch normalization, and n_auxiliary more outputs than its config says.
    """

    def __init__(
        self,
        config: LayerConfig,
        quantization: QuantizationConfig,
        stride: int = 1,
        last: bool = False,
        n_auxiliary: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.quantization = config, quantization
        self.stride = stride
        self.padding = (config.taps - 1) * config.dilation - (stride - 1)
        self.quantizing, self.frozen = not config.is_float, False
        self.input_range: StaticRange | None = None
        n_outputs = config.n_outputs + n_auxiliary
        self.conv = nn.Conv1d(
            config.n_inputs, n_outputs, config.taps, stride=stride, dilation=config.dilation, bias=last
        )
        self.norm = None if last else nn.BatchNorm1d(n_outputs)
        with torch.no_grad():
            nn.init.kaiming_normal_(self.conv.weight, nonlinearity="linear" if last else "relu")
            if self.conv.bias is not None:
                # with a sigmoid each: keywords are rare, so begin below one half
                self.conv.bias.fill_(-2.0 if config.activation == "sigmoid" else 0.0)
            if self.norm is not None and config.residual:
                self.norm.weight.fill_(0.5)  # a residual sum of many layers starts near the identity

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, T) float32 to (B, O, T // stride) float32; a last layer gives logits."""
        x = self.quantize_input(x)
        padded = nn.functional.pad(x, (self.padding, 0))
        if self.norm is not None and self.training and not self.frozen:
            y: Tensor = self.norm(self._convolve(padded, self.quantize_weights(self.conv.weight), None))
        else:
            weight, bias = self.folded()
            y = self._convolve(padded, self.quantize_weights(weight), bias)
        if self.config.residual:
            y = y + x[:, :, self.stride - 1 :: self.stride]
        return torch.relu(y) if self.config.activation == "relu" else y

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return nn.functional.conv1d(x, weight, bias, self.stride, 0, self.config.dilation)

    def quantize_input(self, x: Tensor) -> Tensor:
        """The input vectors (B, I, T), each frame's with its own range (or all with the calibrated one)."""
        if not self.quantizing:
            return x
        if self.input_range is not None:
            return self.input_range.fake_quantize(x)
        return fake_quantize(x, self.config.activation_bits, 1, self.quantization.gradient)

    def quantize_weights(self, weight: Tensor) -> Tensor:
        """The weights (O, I, taps), each column with its own range (or all with one)."""
        if not self.quantizing:
            return weight
        ranges, gradient = self.quantization.weight_ranges, self.quantization.gradient
        sizes = [self.config.n_outputs, len(weight) - self.config.n_outputs]
        parts = torch.split(weight, sizes)  # auxiliary outputs apart
        return torch.cat(
            [fake_quantize_weights(part, self.config.weight_bits, ranges, gradient) for part in parts if len(part)]
        )

    def take_over(self, layer: Layer, x: Tensor | None) -> None:
        """Compute what a float32 layer of the same shape does. x: (B, I, T) inputs, some of what it will get, or None.

        Batch normalization gets the mean and deviation that its own inputs have on x, so that it changes nothing.
        """
        weights = np.ascontiguousarray(np.asarray(layer.weights).transpose(0, 2, 1))
        self.conv.weight[: len(weights)] = torch.from_numpy(weights)
        bias = torch.from_numpy(layer.bias.copy())
        if self.norm is None:
            assert self.conv.bias is not None
            self.conv.bias[: len(bias)] = bias
            return
        assert self.norm.running_var is not None and self.norm.running_mean is not None
        if x is not None:
            sums = self._convolve(nn.functional.pad(x, (self.padding, 0)), self.conv.weight, None)
            self.norm.running_mean.copy_(sums.mean((0, 2)))
            self.norm.running_var.copy_(sums.var((0, 2)))
        self.norm.weight.copy_(torch.sqrt(self.norm.running_var + self.norm.eps))
        self.norm.bias.copy_(bias + self.norm.running_mean)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weights (O, I, taps) and biases (O,), float32, with the batch normalization folded in; differentiable."""
        if self.norm is None:
            assert self.conv.bias is not None
            return self.conv.weight, self.conv.bias
        assert self.norm.running_var is not None and self.norm.running_mean is not None
        scale = self.norm.weight.double() / torch.sqrt(self.norm.running_var.double() + self.norm.eps)
        bias = self.norm.bias.double() - scale * self.norm.running_mean.double()
        return (self.conv.weight.double() * scale[:, None, None]).float(), bias.float()


class KeywordNetwork(nn.Module):
    """ModelConfig's layers, with n_auxiliary more outputs after the keywords while training.

    The input is the raw log-mel; its mean and scale are part of the network. Layers whose config has bits are quantized
    as the runtime does, in training and evaluation (`quantize(False)` turns that off).
    """

    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(
        self, config: ModelConfig, n_auxiliary: int = 0, quantization: QuantizationConfig | None = None
    ) -> None:
        super().__init__()
        last = config.layers[-1]
        if last.residual:
            raise ConfigError("expected a last layer that is not residual")
        self.config = config
        self.quantization = quantization or QuantizationConfig()
        self.n_auxiliary = n_auxiliary
        self.layers = nn.ModuleList()
        for index, layer in enumerate(config.layers):
            stride = config.frame_stride if index == 0 else 1
            is_last = index == len(config.layers) - 1
            self.layers.append(CausalLayer(layer, self.quantization, stride, is_last, n_auxiliary if is_last else 0))
        self.output_range: StaticRange | None = None
        if self.quantization.weight_ranges != "column" and not config.is_float:
            self.freeze()  # only columns can be quantized before batch normalization
        self.register_buffer("feature_mean", torch.zeros(config.frontend.n_mels))
        self.register_buffer("feature_scale", torch.ones(config.frontend.n_mels))

    @property
    def causal_layers(self) -> list[CausalLayer]:
        """The layers, from the input to the logits."""
        return [layer for layer in self.layers if isinstance(layer, CausalLayer)]

    @property
    def quantizing(self) -> bool:
        """Whether a layer is computed quantized."""
        return any(layer.quantizing for layer in self.causal_layers)

    def set_features(self, mean: npt.NDArray[np.float32], scale: npt.NDArray[np.float32]) -> None:
        """Set the input's normalization, (F,) float32 each."""
        self.feature_mean.copy_(torch.from_numpy(mean))
        self.feature_scale.copy_(torch.from_numpy(scale))

    def normalize_by(self, features: npt.NDArray[Any]) -> None:
        """Set the input's normalization by examples, (..., F) log-mel: mean 0 and deviation 1 in every band."""
        frames = features.reshape(-1, features.shape[-1]).astype(np.float64)
        self.set_features(frames.mean(0).astype(np.float32), (1 / np.maximum(frames.std(0), 0.1)).astype(np.float32))

    def take_over(self, model: Model, features: npt.NDArray[np.float32] | None = None) -> None:
        """Take over a float32 model's layers below the output, and the output where it has the same keywords.

        model: of the same shapes below the output.
        features: (B, T, F) log-mel of training audio, by which batch normalization is set to change nothing; None for a
            network that will not be trained.
        """
        mine, others = self.config.layers[-1], model.config.layers[-1]
        same_output = self.config.keywords == model.keywords and (mine.taps, mine.dilation, mine.activation) == (
            others.taps,
            others.dilation,
            others.activation,
        )
        self.set_features(*model.features)
        self.eval()
        with torch.no_grad():
            x = None
            if features is not None:
                x = ((torch.from_numpy(features) - self.feature_mean) * self.feature_scale).transpose(1, 2)
            for index, (own, layer) in enumerate(zip(self.causal_layers, model.layers, strict=True)):
                if index < len(model.layers) - 1 or same_output:
                    own.take_over(layer, x)
                x = None if x is None else own(x)
        self.train()

    def quantize(self, quantizing: bool) -> None:
        """Turn the quantization of all layers that have bits on or off."""
        for layer in self.causal_layers:
            layer.quantizing = quantizing and not layer.config.is_float

    def freeze(self) -> None:
        """Keep the statistics of batch normalization from now on, also in training."""
        for layer in self.causal_layers:
            layer.frozen = True

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, F) float32 log-mel to (B, S, K + n_auxiliary) float32 logits, S = T // frame_stride."""
        x = ((features - self.feature_mean) * self.feature_scale).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        last = self.causal_layers[-1]
        if last.quantizing:
            outputs, auxiliary = torch.split(x, [last.config.n_outputs, self.n_auxiliary], 1)
            if self.output_range is not None:
                outputs = self.output_range.fake_quantize(outputs)
            else:
                outputs = fake_quantize(outputs, last.config.activation_bits, 1, self.quantization.gradient)
            x = torch.cat([outputs, auxiliary], 1)
        return x.transpose(1, 2)

    def posteriors(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(T, F) float32 log-mel to (S, K) float32 posteriors, as ModelState.push gives them.

        From here on the network evaluates.
        """
        last = self.config.layers[-1]
        if len(features) < self.config.frame_stride:
            return np.zeros((0, len(self.config.keywords)), np.float32)
        self.eval()
        with torch.no_grad():
            logits = self(torch.from_numpy(np.ascontiguousarray(features))[None])[0, :, : last.n_outputs]
            outputs = torch.sigmoid(logits) if last.activation == "sigmoid" else torch.softmax(logits, 1)
        posteriors: npt.NDArray[np.float32] = outputs[:, : len(self.config.keywords)].numpy()
        return posteriors

    def calibrate(self, features: Tensor, output: bool = True) -> None:
        """Fix the range of every vector by what passes there in full precision: the baseline to per-frame ranges.

        From here on the network evaluates, quantized. The ranges are part of neither state_dict nor model files.

        features: (B, T, F) float32 log-mel of training audio.
        output: whether the output vector's range is fixed, too, or stays each frame's own.
        """
        self.eval()
        self.quantize(False)
        with torch.no_grad():
            x = ((features - self.feature_mean) * self.feature_scale).transpose(1, 2)
            for layer in self.causal_layers:
                if not layer.config.is_float:
                    layer.input_range = StaticRange.calibrated(x, layer.config.activation_bits)
                x = layer(x)
            last = self.causal_layers[-1].config
            if output and not last.is_float:
                self.output_range = StaticRange.calibrated(x[:, : last.n_outputs], last.activation_bits)
        self.quantize(True)

    def to_float_weights(self) -> FloatWeights:
        """The weights as the runtime uses them: batch normalization folded in, auxiliary outputs dropped."""
        weights, biases = [], []
        with torch.no_grad():
            for layer in self.causal_layers:
                weight, bias = layer.folded()
                n_outputs = layer.config.n_outputs
                weights.append(np.ascontiguousarray(weight[:n_outputs].permute(0, 2, 1).numpy()))
                biases.append(bias[:n_outputs].numpy().copy())
        return FloatWeights(
            feature_mean=self.feature_mean.numpy().copy(),
            feature_scale=self.feature_scale.numpy().copy(),
            weights=tuple(weights),
            biases=tuple(biases),
        )

    def to_model(self) -> Model:
        """The runtime's model in the widths of the network's layers (with the weight ranges that it trained with)."""
        layers = self.config.layers
        return Model.from_float(self.config, self.to_float_weights()).quantize(
            [layer.weight_bits for layer in layers],
            [layer.activation_bits for layer in layers],
            self.quantization.weight_ranges,
        )
