"""Phones: how phrases are pronounced, and how alike two pronunciations are.

Phones are those of the CMU Pronouncing Dictionary (ARPABET without stress), 39 for English.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Phones = tuple[str, ...]

VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = (
    "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y",
    "Z", "ZH",
)  # fmt: skip
PHONES = (*VOWELS, *CONSONANTS)
_NUMBER = {phone: number for number, phone in enumerate(PHONES)}

ALIKE: tuple[tuple[str, ...], ...] = (
    ("IY", "IH"), ("IH", "EH", "AH"), ("EH", "AE"), ("EH", "EY"), ("AE", "AH"), ("AA", "AO", "AH"), ("AO", "OW"),
    ("UH", "UW"), ("UH", "AH"), ("AA", "AW"), ("AA", "AY"), ("AO", "OY"), ("ER", "AH"), ("ER", "AO"), ("OW", "UW"),
    ("P", "B"), ("T", "D"), ("K", "G"), ("F", "V"), ("S", "Z"), ("TH", "DH"), ("SH", "ZH"), ("CH", "JH"),
    ("M", "N"), ("N", "NG"), ("L", "R", "W"), ("S", "SH"), ("SH", "CH"), ("ZH", "JH"), ("TH", "F"), ("TH", "S"),
    ("DH", "V"), ("DH", "D"), ("T", "CH"), ("B", "V"), ("P", "T"), ("T", "K"), ("Z", "DH"),
)  # fmt: skip
"""Phones that are easily taken for one another: one for the other costs half."""

NEAR, FAR, CROSS = 0.5, 1.0, 1.5
"""Cost of one phone for another: alike, both vowels or both consonants, one of each."""
MISSING = 0.8
"""Cost of a phone too many or too few; half of that for a weak one."""
WEAK = ("AH", "IH", "HH")

IPA: tuple[tuple[str, Phones], ...] = (
    # espeak-ng's English, longest first
    ("aɪə", ("AY", "AH")), ("aɪɚ", ("AY", "ER")), ("aɪ", ("AY",)), ("aʊ", ("AW",)), ("ɔɪ", ("OY",)), ("eɪ", ("EY",)),
    ("oʊ", ("OW",)), ("əʊ", ("OW",)), ("tʃ", ("CH",)), ("dʒ", ("JH",)), ("iə", ("IY", "AH")), ("ɪɹ", ("IH", "R")),
    ("əl", ("AH", "L")), ("ɑː", ("AA",)), ("ɔː", ("AO",)), ("uː", ("UW",)), ("iː", ("IY",)), ("ɜː", ("ER",)),
    ("oː", ("AO",)), ("eə", ("EH",)), ("ʊə", ("UH",)), ("ɪə", ("IH", "AH")), ("n̩", ("AH", "N")), ("l̩", ("AH", "L")),
    ("i", ("IY",)), ("ɪ", ("IH",)), ("ᵻ", ("IH",)), ("ɛ", ("EH",)), ("e", ("EH",)), ("æ", ("AE",)), ("a", ("AE",)),
    ("ʌ", ("AH",)), ("ə", ("AH",)), ("ɐ", ("AH",)), ("ɑ", ("AA",)), ("ɒ", ("AA",)), ("ɔ", ("AO",)), ("o", ("OW",)),
    ("ʊ", ("UH",)), ("u", ("UW",)), ("ɚ", ("ER",)), ("ɜ", ("ER",)), ("ɝ", ("ER",)),
    ("b", ("B",)), ("d", ("D",)), ("ð", ("DH",)), ("f", ("F",)), ("ɡ", ("G",)), ("g", ("G",)), ("h", ("HH",)),
    ("k", ("K",)), ("x", ("K",)), ("l", ("L",)), ("ɫ", ("L",)), ("m", ("M",)), ("n", ("N",)), ("ŋ", ("NG",)),
    ("p", ("P",)), ("ɹ", ("R",)), ("r", ("R",)), ("s", ("S",)), ("ʃ", ("SH",)), ("t", ("T",)), ("ɾ", ("T",)),
    ("ʔ", ("T",)), ("θ", ("TH",)), ("v", ("V",)), ("w", ("W",)), ("j", ("Y",)), ("z", ("Z",)), ("ʒ", ("ZH",)),
)  # fmt: skip
"""What espeak-ng writes, and its phones."""


def _costs() -> npt.NDArray[np.float32]:
    """(39, 39) float32, the cost of one phone for another."""
    vowel = np.arange(len(PHONES)) < len(VOWELS)
    costs = np.where(vowel[:, None] == vowel[None], FAR, CROSS).astype(np.float32)
    for group in ALIKE:
        for one in group:
            for other in group:
                costs[_NUMBER[one], _NUMBER[other]] = NEAR
    np.fill_diagonal(costs, 0)
    return costs


COSTS = _costs()
GAPS = np.array([MISSING / 2 if phone in WEAK else MISSING for phone in PHONES], np.float32)
"""(39,) float32, the cost of each phone too many or too few."""


def distance(one: Sequence[str], other: Sequence[str]) -> float:
    """How unlike two pronunciations are: the least cost of changes that make one of the other; 0 for the same."""
    return float(distances(one, numbers([tuple(other)]))[0])


def numbers(pronunciations: Sequence[Sequence[str]]) -> npt.NDArray[np.int64]:
    """Pronunciations of one length as numbers of phones, (n, length) int64."""
    return np.array([[_NUMBER[phone] for phone in phones] for phones in pronunciations], np.int64).reshape(
        len(pronunciations), -1
    )


def distances(one: Sequence[str], others: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """The distance of one pronunciation from each of others, (n,) float32. others: as numbers gives them.

    Source: Wagner and Fischer, "The String-to-String Correction Problem", 1974; here for many strings at once.
    """
    n, length = others.shape
    row = np.zeros((n, length + 1), np.float32)
    row[:, 1:] = np.cumsum(GAPS[others], axis=1)
    for phone in one:
        number = _NUMBER[phone]
        above, row = row, np.empty_like(row)
        row[:, 0] = above[:, 0] + GAPS[number]
        for place in range(length):
            theirs = others[:, place]
            changed = above[:, place] + COSTS[number, theirs]
            row[:, place + 1] = np.minimum(
                changed, np.minimum(above[:, place + 1] + GAPS[number], row[:, place] + GAPS[theirs])
            )
    return row[:, -1]


def from_ipa(text: str) -> Phones:
    """The phones of a pronunciation as espeak-ng writes it; stress and what is no phone of English are left out."""
    phones: list[str] = []
    text = re.sub(r"[ˈˌ‿ˑ]", "", text)
    place = 0
    while place < len(text):
        for written, found in IPA:
            if text.startswith(written, place):
                phones += found
                place += len(written)
                break
        else:
            place += 1
    return tuple(phones)


def is_vowel(phone: str) -> bool:
    """Whether a phone is a vowel, and so the middle of a syllable."""
    return phone in VOWELS


@dataclass(frozen=True)
class Word:
    """A word of the dictionary as it is spelled, with one of its pronunciations."""

    text: str
    phones: Phones


class Dictionary:
    """The CMU Pronouncing Dictionary: a line a word, its phones, and the next pronunciation as word(2).

    path: of its file. Raises OSError where it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.pronunciations: dict[str, list[Phones]] = defaultdict(list)
        for line in path.read_text(encoding="utf-8").splitlines():
            name, *phones = line.partition("#")[0].split()
            text = name.partition("(")[0]
            if text.isalpha():
                self.pronunciations[text].append(tuple(phone.rstrip("012") for phone in phones))
        by_length: dict[int, list[Word]] = defaultdict(list)
        for text, several in self.pronunciations.items():
            for one in dict.fromkeys(several):
                by_length[len(one)].append(Word(text, one))
        self._by_length = {length: (words, numbers([w.phones for w in words])) for length, words in by_length.items()}

    def __contains__(self, word: str) -> bool:
        return word in self.pronunciations

    def nearest(self, phones: Sequence[str], n: int, *, least: float = 0.0) -> list[tuple[float, Word]]:
        """The n words that sound most like a pronunciation, nearest first, with their distance.

        Of words that sound the same one counts, the shortest. least: words at less distance are left out.
        """
        found: list[tuple[float, Word]] = []
        for length in range(max(1, len(phones) - 3), len(phones) + 4):
            if length not in self._by_length:
                continue
            words, theirs = self._by_length[length]
            far = distances(phones, theirs)
            few = np.argsort(far, kind="stable")[: 4 * n + 50]
            found += [(float(far[i]), words[i]) for i in few if far[i] >= least]
        seen: dict[str | Phones, tuple[float, Word]] = {}
        for one in sorted(found, key=lambda one: (one[0], len(one[1].text), one[1].text)):
            if one[1].text not in seen and one[1].phones not in seen:
                seen[one[1].text] = seen[one[1].phones] = one
        return list(dict.fromkeys(seen.values()))[:n]
