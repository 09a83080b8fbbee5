"""DataConfig: where training examples come from, and how they are mixed."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from streamkws.corpus import KEYWORD_SET, ROOM_SET, SEGMENTS
from streamkws.errors import ConfigError

SYNTHETIC = "synthetic"
"""The set of negatives that synthesized speakers say."""
EXCLUDED = "excluded"
"""The set of the recordings that data.exclude names: other words in the voices and microphones of the keywords."""


PACK = "pack"
"""The negatives of a pack of features."""


@dataclass(frozen=True)
class DataConfig:
    """Where the examples come from, and how they are mixed.

    corpus: root folder; train, validation: its parts.
    also_train: more of its parts to train on. Figures on such a part then say nothing. Sets that it lacks are left out.
    also_keywords: parts whose recordings of keywords are trained on, too. The negatives of the validation part are then
        still unheard, so that thresholds can be set on them.
    wakewords, impulse_responses: names of folders of a part.
    exclude: recordings of keywords that are left out, as patterns of <keyword>/<file>, such as "computer/p1*"; and
        segments of the other sets, as patterns of <set>/<label>, such as "community/heysavant".
    negatives: share of each set of negatives, by name; "excluded" is what exclude names, where it says another word.
        noise: the sets mixed into other examples. A name with a slash
        is the folder of a set outside the corpus, such as "runs/mined" (streamkws mine).
    auxiliary: sets whose labels are auxiliary outputs.
    crop_s: length of an example in seconds.
    keyword_share, partial_share: parts of the examples that are keywords, and pieces of keywords.
    swapped_share: part of those pieces that are both halves of the word, the second one first.
    word_pair_share: part of the single-word examples that are several words in a row.
    alone_share: part of the examples of running speech that are a piece as long as a word, alone.
    aligner: a model, by name or path, that finds the keyword in recordings whose loudest stretch is not the keyword; ""
        for none.
    min_tail_s: a keyword ends at least this long before the example does.
    synthetic: folder of a set of synthesized speakers (streamkws voices), "" for none; its segments labelled with a
        keyword are recordings of it, the others are negatives, whose share is that of "synthetic" among the negatives.
    synthetic_share: part of the keyword examples that synthesized speakers say; a keyword without recordings is theirs.
    pack: file of a pack of features (pack.py), "" for none; its share is that of "pack" among the negatives.
    teacher: folder of a speech embedding to learn from (teacher.py), "" for none.
    teacher_clean: whether the teacher hears the recording without the room, the equalizer and the resonances, too.
    """

    negatives: dict[str, float]
    corpus: str = "../shared/corpus"
    train: str = "train"
    also_train: tuple[str, ...] = ()
    also_keywords: tuple[str, ...] = ()
    validation: str = "dev"
    wakewords: str = KEYWORD_SET
    exclude: tuple[str, ...] = ()
    impulse_responses: str = ROOM_SET
    noise: tuple[str, ...] = ()
    auxiliary: tuple[str, ...] = ()
    crop_s: float = 2.0
    keyword_share: float = 0.5
    partial_share: float = 0.08
    swapped_share: float = 0.0
    word_pair_share: float = 0.5
    alone_share: float = 0.0
    aligner: str = ""
    min_tail_s: float = 0.3
    synthetic: str = ""
    synthetic_share: float = 0.3
    pack: str = ""
    teacher: str = ""
    teacher_clean: bool = False

    def __post_init__(self) -> None:
        if not self.negatives or min(self.negatives.values()) < 0 or sum(self.negatives.values()) <= 0:
            raise ConfigError("expected data.negatives to give sets a share of 0 or more, and one more than 0")
        if not 0.5 <= self.crop_s <= 2.0:
            raise ConfigError(f"expected data.crop_s in 0.5..2.0 seconds, got {self.crop_s}")
        shares = (self.keyword_share, self.partial_share)
        if min(shares) < 0 or sum(shares) >= 1:
            raise ConfigError("expected data.keyword_share + data.partial_share below 1, none negative")
        for name in ("swapped_share", "word_pair_share", "alone_share", "synthetic_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"expected data.{name} in 0..1, got {getattr(self, name)}")
        if SYNTHETIC in self.negatives and not self.synthetic:
            raise ConfigError(f"expected data.synthetic to name a folder beside data.negatives.{SYNTHETIC}")
        if (PACK in self.negatives) != bool(self.pack):
            raise ConfigError(f"expected data.pack and data.negatives.{PACK} both or none")
        if EXCLUDED in self.negatives and not self.exclude:
            raise ConfigError(f"expected data.exclude to name recordings beside data.negatives.{EXCLUDED}")
        if not 0 <= self.min_tail_s < self.crop_s / 2:
            raise ConfigError(f"expected data.min_tail_s from 0 to half of crop_s, got {self.min_tail_s}")


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name is one that data.exclude names."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def excluded(path: Path, patterns: tuple[str, ...]) -> bool:
    """Whether a recording <keyword>/<file> is one that data.exclude names."""
    return matches(f"{path.parent.name}/{path.name}", patterns)


def parts_of(part: Path, data: DataConfig) -> list[Path]:
    """The parts of the corpus that are trained on, from the first one's folder."""
    return [part, *(part.parent / name for name in data.also_train)]


def keyword_parts(part: Path, data: DataConfig) -> list[Path]:
    """The parts of the corpus whose recordings of keywords are trained on, from the first one's folder."""
    return list(dict.fromkeys([*parts_of(part, data), *(part.parent / name for name in data.also_keywords)]))


def set_folders(parts: list[Path], name: str) -> list[Path]:
    """The folders of a set: one in each part that has it. The first part must have it.

    A name with a slash is a folder outside the parts.
    """
    if "/" in name:
        return [Path(name)]
    return [parts[0] / name, *(part / name for part in parts[1:] if (part / name / SEGMENTS).is_file())]
