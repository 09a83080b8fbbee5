"""Who says what: the lines of the synthesized speakers that a phrase is learned from and judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamkws.new.near import Near
from streamkws.new.phrase import Phrase
from streamkws.voices.speakers import OTHER, Script

SEED = 11
TAKES = 2
"""How often a speaker says each phrase; once more in an accent."""
SHARES = {"words": 2.0, "replaced": 2.0, "parts": 1.5, "halves": 1.0}
"""How often a near phrase of each kind is drawn."""
NEAREST = 1.6
"""The higher, the more often the nearest of a kind are drawn."""
NEAR_ACCENTED = 2
"""Near phrases in an accent, so that no accent means the phrase."""
FIRST_KEPT_OUT = 100_000
"""Number of the first speaker of the voices that are kept out."""


@dataclass(frozen=True)
class Amounts:
    """How much is made and learned.

    speakers, kept_out: speakers to learn from, and to judge by. near: near phrases of each. sentences: of each.
    pieces: of each kind of made sound, 30 s each. steps: of training.
    """

    speakers: int
    kept_out: int
    near: int
    sentences: int
    pieces: int
    steps: int

    def spoken_s(self, n_phrases: int) -> float:
        """Seconds that a core speaks, about."""
        words = n_phrases * (TAKES + 2) - 1 + self.near + NEAR_ACCENTED
        return (self.speakers + self.kept_out) * (0.9 * words + 2.0 * self.sentences)


FULL = Amounts(speakers=80, kept_out=20, near=6, sentences=2, pieces=40, steps=9000)
QUICK = Amounts(speakers=30, kept_out=10, near=6, sentences=1, pieces=15, steps=2000)


def scripts(
    phrases: Sequence[Phrase], near: Mapping[str, Mapping[str, Sequence[Near]]], amounts: Amounts, kept_out: bool
) -> dict[str, Script]:
    """The scripts of all speakers, by file.

    near: of each phrase, by kind. kept_out: whether of the speakers who judge; their near phrases are labelled with
    their text, those that are learned from with "other". With several phrases each speaker says more that is near.
    """
    files: dict[str, Script] = {}
    first, n = (FIRST_KEPT_OUT, amounts.kept_out) if kept_out else (0, amounts.speakers)
    n_near = amounts.near + len(phrases) - 1
    for number in range(first, first + n):
        rng = np.random.default_rng([SEED, number])
        plain, accented = (_drawn(rng, near, count, kept_out) for count in (n_near, NEAR_ACCENTED))
        own = [(one.text, one.spoken) for one in phrases]
        files[f"k{number:06d}.flac"] = Script(number, (*(own * TAKES), *plain), amounts.sentences, kept_out=kept_out)
        files[f"k{number:06d}-accent.flac"] = Script(number, (*own, *accented), 0, accent=True, kept_out=kept_out)
    return files


def _drawn(
    rng: np.random.Generator, near: Mapping[str, Mapping[str, Sequence[Near]]], n: int, named: bool
) -> list[tuple[str, str]]:
    """n near phrases at random, of any phrase: label and text. named: whether the label is the text."""
    drawn: list[tuple[str, str]] = []
    phrases = list(near)
    while len(drawn) < n:
        kinds = {kind: several for kind, several in near[phrases[int(rng.integers(len(phrases)))]].items() if several}
        shares = np.array([SHARES[kind] for kind in kinds])
        several = kinds[list(kinds)[int(rng.choice(len(kinds), p=shares / shares.sum()))]]
        text = several[int(len(several) * rng.random() ** NEAREST)].text
        drawn.append((text if named else OTHER, text))
    return drawn
