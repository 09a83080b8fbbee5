"""Recipe: the sections of a recipe as frozen dataclasses, validated when they are made; recipe_file.py reads them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace

from streamkws.errors import ConfigError
from streamkws.frontend import FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.model import ModelConfig
from streamkws.smoother import SmootherConfig
from streamkws.training.augment import AugmentConfig
from streamkws.training.data import DataConfig
from streamkws.training.fake_quant import QuantizationConfig, valid_widths


@dataclass(frozen=True)
class HiddenLayer:
    """One entry of model.layers: outputs, taps, dilation, residual, as in LayerConfig; its inputs follow.

    weight_bits, activation_bits: the layer's own widths, 2..8, or 32 (both) for float32; 0 (both) is what
        [quantization] says.
    """

    outputs: int
    taps: int = 1
    dilation: int = 1
    residual: bool = False
    weight_bits: int = 0
    activation_bits: int = 0


@dataclass(frozen=True)
class NetworkConfig:
    """The [model] section: front end and network; a sigmoid layer with an output per keyword follows the layers."""

    keywords: tuple[str, ...]
    layers: tuple[HiddenLayer, ...]
    n_mels: int = 40
    window: str = "hann"
    low_hz: float = 60.0
    high_hz: float = 7600.0
    energy_floor: float = 1e-9
    frame_stride: int = 2
    smoothing_steps: int = 5
    patience_steps: int = 3
    refractory_steps: int = 50

    def __post_init__(self) -> None:
        if not self.keywords or len(set(self.keywords)) != len(self.keywords):
            raise ConfigError("expected model.keywords to name keywords, each once")
        if not self.layers:
            raise ConfigError("expected at least one layer in model.layers")
        for index, layer in enumerate(self.layers):
            if layer.weight_bits or layer.activation_bits:
                names = (f"model.layers[{index}].weight_bits", f"model.layers[{index}].activation_bits")
                valid_widths(layer.weight_bits, layer.activation_bits, names)

    def to_model_config(
        self, provenance: dict[str, str], quantization: QuantizationConfig | None = None
    ) -> ModelConfig:
        """The ModelConfig without durations and thresholds.

        quantization: widths of the layers that have none of their own; None: all layers are float32.
        """
        layers, n_inputs = [], self.n_mels
        for layer in self.layers:
            layers.append(
                LayerConfig(n_inputs, layer.outputs, taps=layer.taps, dilation=layer.dilation, residual=layer.residual)
            )
            n_inputs = layer.outputs
        layers.append(LayerConfig(n_inputs, len(self.keywords), activation="sigmoid"))
        if quantization is not None:
            layers = list(quantization.apply(layers))
            for index, own in enumerate(self.layers):
                if own.weight_bits:
                    layers[index] = replace(
                        layers[index], weight_bits=own.weight_bits, activation_bits=own.activation_bits
                    )
        return ModelConfig(
            keywords=self.keywords,
            layers=tuple(layers),
            frontend=FrontEndConfig(
                n_mels=self.n_mels,
                window=self.window,
                low_hz=self.low_hz,
                high_hz=self.high_hz,
                energy_floor=self.energy_floor,
            ),
            smoother=SmootherConfig(self.smoothing_steps, self.patience_steps, self.refractory_steps),
            frame_stride=self.frame_stride,
            provenance=provenance,
        )


@dataclass(frozen=True)
class TrainingConfig:
    """The [training] section.

    start_from: a checkpoint, or the run folder of one, whose averaged weights training starts from; or an f32 model, by
        name or file, whose layers below the output it starts from (the output, too, if the keywords are the same); "":
        from scratch.
    steps, max_minutes: training ends, its learning rate at learning_rate_end, after these steps or minutes, whichever
        come first; 0 minutes: no limit.
    batch: examples per step. reuse: how often an example is used on average. pool: how many examples are drawn from.
    hard_share: part of a batch drawn in proportion to the examples' difficulty: the highest loss that an absent keyword
        had in an example when it was last used.
    learning_rate, warmup_steps, weight_decay, gradient_clip: of AdamW. learning_rate_end: last value of the cosine; it
        may be the higher one. Above 0, averaging the weights does what annealing does, with less overfitting.
    average_decay: of the weights' moving average, which is the trained network.
    smoothing_steps: the moving average over the logits under the maximum.
    positive_weight, negative_weight, auxiliary_weight: of the losses of keywords present, absent, other outputs.
    teacher_weight: of the error in predicting a teacher's embeddings (data.teacher).
    ensemble: run folders or checkpoints of networks whose mean posterior is learned, too.
    ensemble_weight: of the divergence from it.
    ensemble_heard: posterior, somewhere in an example, from which the ensemble hears a keyword; where it does not hear
        one that is present, or hears one that is absent, the labels alone teach that keyword. 0: they never do.
    frame_weight: of the mean over frames of a negative, and of the frames before a keyword.
    bfloat16: whether products in full precision are computed in bfloat16, nearly twice as fast where the processor has
        it; what it costs in accuracy is open. Quantized training keeps float32.
    patience: training ends after so many validations without fewer misses than before; 0: never so.
    threads: torch's. seed. validate_steps, checkpoint_minutes, log_steps: how often; 0 validate_steps = never.
    """

    start_from: str = ""
    steps: int = 20000
    max_minutes: float = 0.0
    batch: int = 64
    reuse: float = 3.0
    pool: int = 3072
    hard_share: float = 0.0
    learning_rate: float = 3e-3
    learning_rate_end: float = 0.0
    warmup_steps: int = 300
    weight_decay: float = 0.01
    gradient_clip: float = 3.0
    average_decay: float = 0.999
    smoothing_steps: int = 5
    positive_weight: float = 1.0
    negative_weight: float = 1.0
    auxiliary_weight: float = 0.3
    teacher_weight: float = 1.0
    ensemble: tuple[str, ...] = ()
    ensemble_weight: float = 20.0
    ensemble_heard: float = 0.0
    frame_weight: float = 0.2
    bfloat16: bool = False
    threads: int = 1
    seed: int = 1
    validate_steps: int = 500
    patience: int = 0
    checkpoint_minutes: float = 2.0
    log_steps: int = 50

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "pool", "threads", "smoothing_steps", "log_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"expected training.{name} of at least 1, got {getattr(self, name)}")
        if self.reuse < 1:
            raise ConfigError(f"expected training.reuse of at least 1, got {self.reuse}")
        if not 0 <= self.hard_share <= 1:
            raise ConfigError(f"expected training.hard_share in 0..1, got {self.hard_share}")
        if self.pool < self.batch:
            raise ConfigError(f"expected training.pool >= batch, got {self.pool} and {self.batch}")
        if not all(isinstance(place, str) for place in self.ensemble):
            raise ConfigError(f"expected training.ensemble to be paths, got {list(self.ensemble)}")
        if not 0 <= self.ensemble_heard <= 1:
            raise ConfigError(f"expected training.ensemble_heard in 0..1, got {self.ensemble_heard}")
        if not 0 < self.average_decay < 1:
            raise ConfigError(f"expected training.average_decay in 0..1, got {self.average_decay}")
        for name in (
            "max_minutes", "learning_rate", "learning_rate_end", "warmup_steps", "weight_decay", "gradient_clip",
            "positive_weight", "negative_weight", "auxiliary_weight", "teacher_weight", "ensemble_weight",
            "frame_weight", "seed", "validate_steps", "patience", "checkpoint_minutes",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise ConfigError(f"expected training.{name} >= 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class ExportConfig:
    """The [export] section.

    bits: weight and activation bits of each model that is quantized after training, beside the f32 one. Not with a
        [quantization] section: its training gives one model, in the widths it was trained for.
    rounding_examples: training examples on which the weight codes of fewer than 8 bits are chosen, so that the layers'
        outputs change least (gptq.py); 0: each weight is rounded by itself. Not with a [quantization] section.
    early_stopping: whether the model is the checkpoint that missed least on the validation part without a false accept,
        not the latest.
    target_fa_per_h: false accepts per hour of the validation part for which thresholds are set; 0 sets none.
    noise_snrs_db, noise_target_fa_per_h: signal-to-noise ratios at which noise is mixed into that part, and the false
        accepts per hour in each such mix that the thresholds also keep to.
    threshold_confidence: how sure these rates are to hold in other audio of the kind (evaluation/thresholds.py); 0 only
        counts in that part.
    lowest_threshold: no threshold is set below it.
    left_out: sets of the validation part that set no threshold.
    provenance: text for the file.
    """

    bits: tuple[tuple[int, int], ...] = ((8, 8), (4, 8))
    rounding_examples: int = 1000
    early_stopping: bool = False
    target_fa_per_h: float = 0.5
    noise_snrs_db: tuple[float, ...] = ()
    noise_target_fa_per_h: float = 0.5
    threshold_confidence: float = 0.0
    lowest_threshold: float = 0.0
    left_out: tuple[str, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for pair in self.bits:
            if not isinstance(pair, tuple) or len(pair) != 2 or not all(2 <= bits <= 8 for bits in pair):
                raise ConfigError(f"expected export.bits to be pairs of 2 to 8 bits, got {pair}")
        for name in ("rounding_examples", "target_fa_per_h", "noise_target_fa_per_h"):
            if getattr(self, name) < 0:
                raise ConfigError(f"expected export.{name} >= 0, got {getattr(self, name)}")
        for snr_db in self.noise_snrs_db:
            if isinstance(snr_db, bool) or not isinstance(snr_db, (int, float)) or not math.isfinite(snr_db):
                raise ConfigError(f"expected export.noise_snrs_db to be numbers of dB, got {snr_db!r}")
        if not 0 <= self.lowest_threshold < 1:
            raise ConfigError(f"expected export.lowest_threshold from 0 to below 1, got {self.lowest_threshold}")
        if self.threshold_confidence and not 0.5 <= self.threshold_confidence <= 0.999:
            raise ConfigError(
                f"expected export.threshold_confidence of 0.5 to 0.999, or 0, got {self.threshold_confidence}"
            )


def valid_run_name(name: object, what: str) -> str:
    """Return a name that a run's folder can have, inside runs/; raise ConfigError for any other.

    what: it is the name of, for the message.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w. -]*", name):
        raise ConfigError(
            f"expected {what} of letters, digits, spaces and . _ -, beginning with a letter or digit, got {name!r}"
        )
    return name


@dataclass(frozen=True)
class Recipe:
    """A whole recipe.

    name: of the run and the models.
    quantization: the [quantization] section; None without one: training in full precision.
    """

    name: str
    model: NetworkConfig
    data: DataConfig
    augment: AugmentConfig
    training: TrainingConfig
    export: ExportConfig
    quantization: QuantizationConfig | None = None

    def __post_init__(self) -> None:
        valid_run_name(self.name, "a recipe's name")
        quantization = self.quantization
        if quantization is None:
            for index, layer in enumerate(self.model.layers):
                if layer.weight_bits:
                    raise ConfigError(
                        f"expected a [quantization] section for model.layers[{index}].weight_bits, found none"
                    )
            return
        if quantization.activation_ranges != "frame":
            raise ConfigError(
                f'expected quantization.activation_ranges = "frame", got {quantization.activation_ranges!r}, '
                "a baseline for experiments that the runtime does not have"
            )
        if self.model.to_model_config({}, quantization).is_float:
            raise ConfigError("expected [quantization] to quantize a layer, got 32 bits in all")
        if not self.training.start_from:
            for reason, frozen in (
                ("freeze_share = 0", quantization.freeze_share == 0),
                ('weight_ranges = "matrix"', quantization.weight_ranges == "matrix"),
            ):
                if frozen:
                    raise ConfigError(
                        f"expected training.start_from beside {reason}, found none: batch normalization would be "
                        "frozen before it has seen any data"
                    )
