"""The variants of the recipe that bench/accuracy/crossval.py compares: each changes one thing of the baseline.

The results are in bench/research/experiments.md. Its older tables are of an earlier recipe: without a teacher and
synthesized speakers, in float32, with the word where speech_region finds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.quantization.quantization_tasks import WakeWords
from streamkws.training.fake_quant import QuantizationConfig


@dataclass(frozen=True)
class Variant:
    """A change to a recipe.

    data, augment, training: what is replaced in DataConfig, AugmentConfig and TrainingConfig.
    size: of the proxy network, in thousands of parameters.
    members: an ensemble: the names of the variants whose networks' posteriors are averaged; nothing is trained.
    ensemble: the variants whose networks, of the same fold, are the ensemble that this one learns from.
    start_from: the variant whose network, of the same fold, training starts from.
    quantization: of its training, if that is quantization-aware: in w4a8.
    rounding_examples: examples on which its members' codes are chosen (streamkws/gptq.py); 0: rounded as they are.
    weight_bits: the widths in which it is judged, besides float32 if it is trained; activations have 8 bits.
    examples: made for all folds together; 0: as many as the command line says.
    """

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    size: int = 100
    members: tuple[str, ...] = ()
    ensemble: tuple[str, ...] = ()
    start_from: str = ""
    quantization: QuantizationConfig | None = None
    rounding_examples: int = 0
    weight_bits: tuple[int, ...] = (4,)
    examples: int = 0

    @property
    def widths(self) -> list[str]:
        """The widths in which it is judged."""
        full = [] if self.quantization or self.rounding_examples else ["f32"]
        return full + [f"w{bits}a8" for bits in self.weight_bits]

    @property
    def described(self) -> str:
        """How it uses the networks of other variants, for the note under the table; empty where it uses none."""
        if self.rounding_examples:
            return f"that of {', '.join(self.members)}, codes chosen on {self.rounding_examples:,} training examples"
        if self.members:
            return f"the mean of the posteriors of {', '.join(self.members)}"
        steps = f"{self.training['steps']:,}" if "steps" in self.training else "as many"
        parts = [f"{steps} steps more from {self.start_from} on"] if self.start_from else []
        parts += [f"on {self.examples:,} examples"] if self.examples else []
        parts += ["quantization-aware"] if self.quantization else []
        parts += [f"learning from the mean of {', '.join(self.ensemble)}"] if self.ensemble else []
        return ", ".join(parts)


RECORDED_NEGATIVES = WakeWords.data.negatives
"""Those of bench/research/from_scratch.toml without what is synthesized."""

AWARE = {
    "steps": 400,
    "learning_rate": 5e-4,
    "learning_rate_end": 0.0,
    "warmup_steps": 20,
    "average_decay": 0.99,
    "bfloat16": False,
}
"""How a network is trained quantization-aware, as in the example at the end of bench/research/from_scratch.toml."""
W4A8 = QuantizationConfig(weights=4, activations=8, freeze_share=0.0)
MINED = {
    "synthetic": "runs/synthetic-accents",
    "negatives": {**RECORDED_NEGATIVES, "synthetic": 1.5, "runs/mined-made": 0.8},
}
"""Speakers with accents, and what `streamkws mine` found in made sound and synthesized phrases (--foreign 0), without
the numbers in other languages that the shipped recipe has, too."""

VARIANTS = (
    Variant("baseline"),
    Variant("baseline-seed2", training={"seed": 2}),
    Variant("baseline-two-seeds", members=("baseline", "baseline-seed2")),
    Variant("before", data={"exclude": ()}, training={"learning_rate_end": 0.0}),
    Variant("ensemble", members=("baseline", "baseline-seed2", "before")),
    Variant(
        "distilled",
        training={"learning_rate": 1.5e-3, "learning_rate_end": 5e-4},
        ensemble=("baseline", "baseline-seed2", "before"),
        start_from="baseline",
    ),
    Variant(
        "distilled-twice",
        training={"learning_rate": 1e-3, "learning_rate_end": 3e-4},
        ensemble=("baseline", "baseline-seed2", "before", "distilled"),
        start_from="distilled",
    ),
    Variant(
        "distilled-long",
        training={"steps": 8000, "learning_rate": 1.5e-3, "learning_rate_end": 5e-4},
        ensemble=("baseline", "baseline-seed2", "before", "distilled"),
        start_from="distilled",
        examples=98_304,
    ),
    Variant(
        "aware",
        training=AWARE,
        ensemble=("baseline", "baseline-seed2", "before", "distilled"),
        start_from="distilled-long",
        quantization=W4A8,
        examples=98_304,
    ),
    Variant(
        "mined",
        data=MINED,
        training={"steps": 5000, "learning_rate": 1.5e-3, "learning_rate_end": 5e-4, "ensemble_heard": 0.5},
        ensemble=("baseline", "baseline-seed2", "before", "distilled", "distilled-long"),
        start_from="distilled-long",
    ),
    Variant(
        "mined-aware",
        data=MINED,
        training={**AWARE, "ensemble_heard": 0.5},
        ensemble=("baseline", "baseline-seed2", "before", "distilled", "distilled-long"),
        start_from="mined",
        quantization=W4A8,
    ),
    Variant("mined-rounded", data=MINED, members=("mined",), rounding_examples=1024, weight_bits=(4, 3, 2)),
    Variant("trained-on", training={"learning_rate": 1.5e-3, "learning_rate_end": 5e-4}, start_from="baseline"),
    Variant("harder", training={"hard_share": 0.5}),
    Variant("not-hard", training={"hard_share": 0.0}),
    Variant(
        "no-devices",
        augment={
            "resonance_share": 0.0,
            "suppression_share": 0.0,
            "compressor_share": 0.0,
            "saturation_share": 0.0,
            "codec_share": 0.0,
        },
    ),
    Variant("not-located", data={"aligner": ""}),
    Variant("no-teacher", data={"teacher": ""}),
    Variant("stronger-teacher", training={"teacher_weight": 6.0}),
    Variant("no-synthetic", data={"synthetic": "", "negatives": RECORDED_NEGATIVES}),
    Variant("more-synthetic", data={"synthetic_share": 0.5}),
    Variant("float32", training={"bfloat16": False}),
    Variant("no-auxiliary", training={"auxiliary_weight": 0.0}),
    Variant("no-tempo-jitter", augment={"tempo_jitter": 0.0}),
    Variant("more-tempo-jitter", augment={"tempo_jitter": 0.25}),
    Variant("no-pieces", data={"partial_share": 0.0}),
    Variant("noisier", augment={"noise_share": 0.9, "snr_min_db": -5.0, "snr_max_db": 20.0}),
    Variant("fewer-keywords", data={"keyword_share": 0.3}),
    Variant(
        "stronger",
        augment={
            "n_vtlp": 13,
            "vtlp_min": 0.78,
            "vtlp_max": 1.28,
            "speed_min": 0.75,
            "speed_max": 1.25,
            "room_share": 0.7,
            "equalizer_share": 0.8,
            "equalizer_db": 7.0,
        },
    ),
    Variant("longer", training={"steps": 6000, "warmup_steps": 200, "average_decay": 0.998}),
    Variant("250k", size=250),
)
