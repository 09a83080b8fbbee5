"""ModelConfig and Model (constant, shared between streams), ModelState (one stream's network)."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws import kernels
from streamkws.errors import ConfigError
from streamkws.frontend import FrontEnd, FrontEndConfig, mel_filters
from streamkws.gptq import round_layers, step_weights
from streamkws.layers import ACTIVATIONS, FLOAT_BITS, Layer, LayerConfig
from streamkws.quantization import Quantized
from streamkws.smoother import PosteriorSmoother, SmootherConfig, StepClock, check_numbers, valid_keywords

F32 = npt.NDArray[np.float32]

FLOAT_LEVELS = 0.0
AHEAD_S = 0.5
"""How long before the network hears a keyword what it puts out counts as part of it, in choosing codes."""
ROUNDING = "rounding"
"""The entry of provenance that says on what a model's codes were chosen (Model.quantize with examples)."""


MAX_STRIDE, MAX_REMEMBERED, MAX_DURATION_S, MAX_REACH_S = 1000, 1 << 26, 60.0, 600.0
MAX_FILTER, MAX_LOG_MEL, MAX_VALUE = 1e3, 200.0, 1e36
"""What keeps every value on its way within float32: a log-mel of the loudest sound that is let in is below 200."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything about a model but its weights; travels in the model file.

    keywords: K names, the order of the last layer's outputs (a softmax layer has one more, last: no keyword).
    layers: from the input (n_inputs = n_mels) to the posteriors.
    frame_stride: the network runs on every frame_stride-th frame; the first layer still reads every frame.
    thresholds: calibrated default threshold per keyword.
    durations_s: typical duration of each keyword in seconds, for Detection.start.
    provenance: free text: name, data, recipe, licence, date.
    weight_errors: what quantization changed in each layer's weights: their relative RMS error, and that of the worst
        column (0 in a layer left in float32); empty where unknown.
    """

    keywords: tuple[str, ...]
    layers: tuple[LayerConfig, ...]
    frontend: FrontEndConfig = field(default_factory=FrontEndConfig)
    smoother: SmootherConfig = field(default_factory=SmootherConfig)
    frame_stride: int = 1
    thresholds: dict[str, float] = field(default_factory=dict)
    durations_s: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)
    weight_errors: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not self.keywords or len(set(self.keywords)) != len(self.keywords):
            raise ConfigError(f"expected at least one keyword and no name twice, got {self.keywords}")
        for keyword in self.keywords:
            if not keyword.strip() or not keyword.isprintable():
                raise ConfigError(f"expected keywords of printable characters, got {keyword!r}")
        if not 1 <= self.frame_stride <= MAX_STRIDE:
            raise ConfigError(f"expected frame_stride of 1 to {MAX_STRIDE}, got {self.frame_stride}")
        if not self.layers:
            raise ConfigError("expected at least one layer, got none")
        n = self.frontend.n_mels
        for index, layer in enumerate(self.layers):
            if layer.n_inputs != n:
                raise ConfigError(f"expected {n} inputs in layer {index}, got {layer.n_inputs}")
            if layer.activation in ("sigmoid", "softmax") and index < len(self.layers) - 1:
                raise ConfigError(f"expected {layer.activation} only on the last layer, got it on layer {index}")
            n = layer.n_outputs
        last = self.layers[-1]
        n_outputs = len(self.keywords) + (last.activation == "softmax")
        if last.activation not in ("sigmoid", "softmax"):
            raise ConfigError(f"expected the last layer to be sigmoid or softmax, got {last.activation}")
        if last.n_outputs != n_outputs:
            raise ConfigError(
                f"expected {n_outputs} outputs of the last layer for {len(self.keywords)} keywords with "
                f"{last.activation}, got {last.n_outputs}"
            )
        remembered = sum(layer.n_slots * layer.n_inputs for layer in self.layers)
        remembered += self.smoother.smoothing_steps * len(self.keywords)
        if remembered > MAX_REMEMBERED:
            raise ConfigError(f"expected a model that remembers at most {MAX_REMEMBERED} values, got {remembered}")
        reach_s = self.memory_frames * self.frontend.hop_samples / self.frontend.sample_rate
        if reach_s > MAX_REACH_S:
            raise ConfigError(f"expected layers that hear at most {MAX_REACH_S:g} s back, got {reach_s:g} s")
        valid_keywords(self.thresholds, self.keywords)
        valid_keywords(self.durations_s, self.keywords)
        check_numbers("threshold", self.thresholds, 1.0)
        check_numbers("duration in seconds", self.durations_s, MAX_DURATION_S)
        for name, text in self.provenance.items():
            if not isinstance(text, str):
                raise ConfigError(f"expected provenance to be text, got {text!r} for {name!r}")
        if self.weight_errors and [len(errors) for errors in self.weight_errors] != [2] * len(self.layers):
            raise ConfigError(
                f"expected two weight_errors for each of {len(self.layers)} layers, got {self.weight_errors}"
            )
        if not all(0 <= error <= sys.float_info.max for errors in self.weight_errors for error in errors):
            raise ConfigError(f"expected finite weight_errors of at least 0, got {self.weight_errors}")

    @property
    def step_samples(self) -> int:
        """Samples of audio per network step (hop_samples * frame_stride)."""
        return self.frontend.hop_samples * self.frame_stride

    @property
    def memory_frames(self) -> int:
        """Frames after which the network no longer knows what it heard before."""
        return self.frame_stride * (1 + sum(layer.n_slots - 1 for layer in self.layers))

    @property
    def clock(self) -> StepClock:
        """Turns network steps into seconds."""
        first_end = (self.frame_stride - 1) * self.frontend.hop_samples + self.frontend.window_samples
        return StepClock(first_end, self.step_samples, self.frontend.sample_rate)

    @property
    def is_float(self) -> bool:
        """Whether every layer computes in float32."""
        return all(layer.is_float for layer in self.layers)

    @property
    def bits(self) -> str:
        """The model's widths: "f32", "w4a8", ...; layers of several widths are joined with "+"."""
        return "+".join(dict.fromkeys(layer.bits for layer in self.layers))


@dataclass(frozen=True)
class FloatWeights:
    """Full-precision weights as training produces them.

    feature_mean, feature_scale: (F,) float32; the network's input is (log_mel - mean) * scale.
    weights: one (O, taps, I) float32 per layer; tap taps-1 is the newest frame.
    biases: one (O,) float32 per layer.
    """

    feature_mean: F32
    feature_scale: F32
    weights: tuple[F32, ...]
    biases: tuple[F32, ...]


class Model:
    """A network with its settings; constant, shared between streams and threads, and by its own copies.

    features: (2, F) float32, mean and scale of the log-mel input.
    filters: (F, fft_samples // 2 + 1) float32 mel filters.
    """

    def __init__(self, config: ModelConfig, layers: tuple[Layer, ...], features: F32, filters: F32) -> None:
        n_mels = config.frontend.n_mels
        if features.shape != (2, n_mels):
            raise ConfigError(f"expected features of shape (2, {n_mels}), got {features.shape}")
        if not (np.isfinite(features).all() and np.isfinite(filters).all()):
            raise ConfigError("expected finite feature and filter tables, got NaN or infinite ones")
        if tuple(layer.config for layer in layers) != config.layers:
            raise ConfigError("expected the layers of the configuration, got other ones")
        _check_bounded(layers, features, filters)
        self.config = config
        self.layers = layers
        self.features = features
        self.filters = filters
        self.network = _network(layers, features)

    @classmethod
    def from_float(cls, config: ModelConfig, weights: FloatWeights) -> Model:
        """Build an f32 model (every layer's bits are set to 32)."""
        float_layers = tuple(
            replace(layer, weight_bits=FLOAT_BITS, activation_bits=FLOAT_BITS) for layer in config.layers
        )
        if not len(weights.weights) == len(weights.biases) == len(float_layers):
            raise ConfigError(
                f"expected weights and biases of {len(float_layers)} layers, got {len(weights.weights)} and "
                f"{len(weights.biases)}"
            )
        layers = tuple(
            Layer(c, np.ascontiguousarray(w, np.float32), np.ascontiguousarray(b, np.float32))
            for c, w, b in zip(float_layers, weights.weights, weights.biases, strict=True)
        )
        features = np.stack([weights.feature_mean, weights.feature_scale]).astype(np.float32)
        float_config = replace(config, layers=float_layers, weight_errors=())
        return cls(float_config, layers, features, mel_filters(config.frontend))

    def quantize(
        self,
        weight_bits: int | Sequence[int],
        activation_bits: int | Sequence[int],
        ranges: str = "column",
        examples: Sequence[F32] = (),
    ) -> Model:
        """This f32 model with every weight column quantized (quantization after training).

        What it changed in the weights is in the result's config.weight_errors.

        weight_bits, activation_bits: for all layers, or one for each; 32 leaves a layer in float32.
        ranges: "matrix" for one range per layer instead of one per column, to compare with.
        examples: log-mel of audio such as the model will hear, (T, F) float32 each, from the start of a stream on. With
            some, a column's codes are chosen together so that the layers' outputs change least (gptq.py says how;
            a minute of it will do), instead of each weight's by itself; more weights then differ, and outputs less.
        Raises ConfigError for widths that do not fit, and for examples that are empty, not (T, F), not finite, or
        come with ranges "matrix".
        """
        n_layers = len(self.layers)
        widths = []
        for name, bits in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
            each = (bits,) * n_layers if isinstance(bits, int) else tuple(bits)
            if len(each) != n_layers:
                raise ConfigError(f"expected {name} for {n_layers} layers, got {len(each)}")
            widths.append(each)
        configs = tuple(
            replace(layer.config, weight_bits=weights, activation_bits=activations)
            for layer, weights, activations in zip(self.layers, *widths, strict=True)
        )
        if len(examples):
            if ranges != "column":
                raise ConfigError(f'expected ranges "column" with examples, got {ranges!r}')
            inputs = [self._input(example) for example in examples]
            ahead = max(1, round(AHEAD_S * self.config.frontend.sample_rate / self.config.step_samples))
            weights = [step_weights(self.new_state().push(example), ahead) for example in examples]
            layers = round_layers(self.layers, configs, inputs, self.config.frame_stride, weights)
        else:
            layers = tuple(layer.quantize(config, ranges) for layer, config in zip(self.layers, configs, strict=True))
        errors = tuple(layer.weight_error(quantized) for layer, quantized in zip(self.layers, layers, strict=True))
        unchanged = all(config.is_float for config in configs)
        config = replace(self.config, layers=configs, weight_errors=() if unchanged else errors)
        return Model(config, layers, self.features, self.filters)

    def _input(self, example: F32) -> F32:
        """Log-mel as the first layer takes it in; raises ConfigError for an unusable example."""
        n_mels = self.config.frontend.n_mels
        frames = np.asarray(example, np.float32)
        if frames.ndim != 2 or len(frames) < self.config.frame_stride or frames.shape[1] != n_mels:
            raise ConfigError(
                f"expected examples of shape (T, {n_mels}), T >= {self.config.frame_stride}, got {frames.shape}"
            )
        if not np.isfinite(frames).all():
            raise ConfigError("expected finite examples, got NaN or infinite values")
        normalized: F32 = (frames - self.features[0]) * self.features[1]
        return normalized

    def with_settings(
        self,
        thresholds: Mapping[str, float] | None = None,
        smoother: SmootherConfig | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> Model:
        """This model with other default thresholds, smoother settings or further provenance."""
        config = replace(
            self.config,
            thresholds=dict(self.config.thresholds if thresholds is None else _floats(thresholds)),
            smoother=self.config.smoother if smoother is None else smoother,
            provenance={**self.config.provenance, **(provenance or {})},
        )
        return Model(config, self.layers, self.features, self.filters)

    @property
    def name(self) -> str:
        """Name and widths, as in the file name: "wakewords.w4a8"."""
        return f"{self.config.provenance.get('name', 'unnamed')}.{self.config.bits}"

    @property
    def keywords(self) -> tuple[str, ...]:
        """The K keywords, in the order of the posteriors."""
        return self.config.keywords

    @property
    def thresholds(self) -> dict[str, float]:
        """The calibrated default threshold per keyword."""
        return dict(self.config.thresholds)

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        return sum(layer.n_weights + layer.n_outputs for layer in self.config.layers)

    @property
    def stored_bytes(self) -> int:
        """Bytes of weights, quantization tables and biases as a model file holds them."""
        return sum(layer.stored_bytes for layer in self.config.layers)

    @property
    def resident_bytes(self) -> int:
        """Bytes of the network as held in memory: padded weights and every table."""
        return sum(array.nbytes for array in self.network)

    @property
    def float_bytes(self) -> int:
        """Bytes of the same weights and biases in float32."""
        return 4 * self.n_parameters

    def __reduce__(self) -> tuple[Any, ...]:
        return Model, (self.config, self.layers, self.features, self.filters)

    def __copy__(self) -> Model:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        return self

    def new_front_end(self) -> FrontEnd:
        """A new FrontEnd with the model's settings and filters."""
        return FrontEnd(self.config.frontend, self.filters)

    def new_state(self) -> ModelState:
        """A new stream's network state."""
        return ModelState(self)

    @cached_property
    def after_silence(self) -> kernels.NetworkState:
        """A stream's network that has heard digital silence for longer than it remembers."""
        frontend, n_frames = self.config.frontend, self.config.memory_frames
        state = self.new_state()
        frames = self.new_front_end().push(np.zeros(frontend.window_samples, np.int16))
        state.push(np.repeat(frames, n_frames, axis=0))
        return state.state

    def new_smoother(
        self,
        thresholds: Mapping[str, float] | None = None,
        keywords: Iterable[str] | None = None,
        near: float | None = None,
    ) -> PosteriorSmoother:
        """A new PosteriorSmoother; thresholds override the model's, keywords limits what may be detected.

        near: from where on it gives near misses, None for none.
        """
        config = self.config
        merged = {**config.thresholds, **(thresholds or {})}
        return PosteriorSmoother(
            config.smoother, config.keywords, config.clock, merged, config.durations_s, wanted=keywords, near=near
        )


class ModelState(kernels.OneStream):
    """One stream's network: a ring of quantized frames per layer. All zero before anything is heard."""

    state: kernels.NetworkState

    def __init__(self, model: Model) -> None:
        self.model = model
        records = model.network.layers
        slots = int(records.n_slots.sum())
        is_float = records.weight_bits == FLOAT_BITS
        widest = max(int(records.n_inputs.max()), int(records.n_rows.max()))
        n_last = int(records.n_outputs[-1])
        self.state = kernels.own_arrays(
            kernels.NetworkState(
                codes=np.zeros(int((records.n_slots * records.n_codes)[~is_float].sum()), np.uint8),
                floats=np.zeros(int((records.n_slots * records.n_inputs)[is_float].sum()), np.float32),
                ranges=np.zeros((slots, 2), np.float32),
                sums=np.zeros(slots, np.int32),
                newest=np.zeros(len(records), np.int64),
                n_frames=np.zeros(1, np.int64),
                values=np.zeros(widest, np.float32),
                products=np.zeros(int(records.n_rows.max()), np.int32),
                output_codes=np.zeros(n_last, np.uint8),
                output_range=np.zeros((1, 2), np.float32),
                output_sum=np.zeros(1, np.int32),
            )
        )

    def hear_silence(self) -> None:
        """Go on as after a long silence, as a stream begins: then its very first sound is heard like any other."""
        for name, silent in self.model.after_silence._asdict().items():
            getattr(self.state, name)[:] = silent

    def push(self, frames: npt.ArrayLike) -> F32:
        """Feed log-mel frames and return the posteriors of the network steps they completed.

        frames: (T, F) float32. Returns (S, K) float32, a row per step of frame_stride frames.
        """
        config = self.model.config
        rows = np.ascontiguousarray(frames, np.float32)
        if rows.ndim != 2 or rows.shape[1] != config.frontend.n_mels:
            raise ConfigError(f"expected frames of shape (T, {config.frontend.n_mels}), got {rows.shape}")
        n = (int(self.state.n_frames[0]) + len(rows)) // config.frame_stride
        posteriors = np.empty((n + 1, len(config.keywords)), np.float32)  # a row of room for the frames behind the last
        kernels.push_frames(self.model.network, self.state, config.frame_stride, rows, posteriors)
        return posteriors[:n]


def _floats(values: Mapping[str, float]) -> dict[str, float]:
    """Values of NumPy's types as Python's, which a model file can hold; what is no number stays for the check."""
    return {name: float(value) if isinstance(value, Real) else value for name, value in values.items()}


def _check_bounded(layers: tuple[Layer, ...], features: F32, filters: F32) -> None:
    """Raise ConfigError where some sound might make a value too large for float32, and the posteriors NaN."""
    if float(np.abs(filters).max(initial=0.0)) > MAX_FILTER:
        raise ConfigError(f"expected mel filters of at most {MAX_FILTER:g}, got {np.abs(filters).max():g}")
    mean, scale = np.abs(features.astype(np.float64))
    highest = float(((mean + MAX_LOG_MEL) * scale).max())
    for index, layer in enumerate(layers):
        highest, term = layer.bounds(highest)
        if not max(highest, term) <= MAX_VALUE:
            raise ConfigError(f"expected values of at most {MAX_VALUE:g} in layer {index}, they may reach {term:g}")


def _network(layers: tuple[Layer, ...], features: F32) -> kernels.Network:
    """Pack the layers into the flat arrays the kernels read."""
    records = np.zeros(len(layers), kernels.LAYER).view(np.recarray)
    weights: list[npt.NDArray[np.uint8]] = []
    float_weights: list[F32] = []
    weight_sums: list[F32] = []
    narrow_sums: list[npt.NDArray[np.uint16]] = []
    columns = []
    codes_end = floats_end = weights_end = float_weights_end = columns_end = slots_end = 0
    sums_end = narrow_end = 0
    for record, layer in zip(records, layers, strict=True):
        c = layer.config
        record.n_inputs, record.n_outputs = c.n_inputs, c.n_outputs
        record.n_rows = kernels.padded(c.n_outputs, kernels.ROW_BLOCK)
        record.n_codes = kernels.padded(c.n_inputs, kernels.ROW_CODES)
        record.taps, record.dilation, record.n_slots = c.taps, c.dilation, c.n_slots
        record.activation, record.residual = ACTIVATIONS[c.activation], c.residual
        record.weight_bits = c.weight_bits
        record.columns, record.slots = columns_end, slots_end
        if isinstance(layer.weights, Quantized):
            packed = layer.kernel_weights()
            record.weights, record.tap_size, record.ring = weights_end, packed[0].size, codes_end
            record.narrow_sums = c.n_inputs * (2**c.weight_bits - 1) <= np.iinfo(np.uint16).max
            record.weight_sums = narrow_end if record.narrow_sums else sums_end
            weights.append(packed.ravel())
            sums = layer.weights.codes.sum(axis=2, dtype=np.int64).T.ravel()
            columns.append(np.stack([layer.weights.lo, layer.weights.step, layer.bias]))
            weights_end += packed.size
            if record.narrow_sums:
                narrow_sums.append(sums.astype(np.uint16))
                narrow_end += sums.size
            else:
                weight_sums.append(sums.astype(np.float32))
                sums_end += sums.size
            codes_end += c.n_slots * record.n_codes
        else:
            record.weights, record.tap_size, record.ring = float_weights_end, c.n_outputs * c.n_inputs, floats_end
            float_weights.append(np.ascontiguousarray(layer.weights.transpose(1, 0, 2)).ravel())
            columns.append(np.stack([np.zeros_like(layer.bias), np.ones_like(layer.bias), layer.bias]))
            float_weights_end += c.n_weights
            floats_end += c.n_slots * c.n_inputs
        columns_end += c.n_outputs
        slots_end += c.n_slots
    bits = [layer.config.activation_bits for layer in layers]
    bits.append(bits[-1])
    empty_bytes, empty_floats = np.zeros(0, np.uint8), np.zeros(0, np.float32)
    network = kernels.Network(
        layers=records,
        weights=np.concatenate([*weights, empty_bytes]),
        float_weights=np.concatenate([*float_weights, empty_floats]),
        columns=np.concatenate(columns, axis=1).astype(np.float32),
        weight_sums=np.concatenate([*weight_sums, empty_floats]),
        narrow_sums=np.concatenate([*narrow_sums, np.zeros(0, np.uint16)]),
        levels=np.array([FLOAT_LEVELS if b == FLOAT_BITS else 2**b - 1 for b in bits], np.float32),
        features=np.ascontiguousarray(features, np.float32),
    )
    return kernels.constant_arrays(network)
