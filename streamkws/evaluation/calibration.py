"""Calibration: a model and audio without its keywords in, thresholds out.

False accepts are counted and thresholds chosen as for a corpus; the docstring of the package has the definitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from streamkws.audio import AUDIO_SUFFIXES, audio_files
from streamkws.corpus import IGNORED_SETS, KEYWORD_SET, Corpus, NegativeFile, read_recordings
from streamkws.errors import ConfigError
from streamkws.evaluation.counting import ZERO_COUNT_BOUND
from streamkws.evaluation.curves import HIGHEST
from streamkws.evaluation.measure import evaluate_scores
from streamkws.evaluation.operating_points import CLEAN, OperatingPoint
from streamkws.evaluation.scoring import Progress, score_corpus
from streamkws.evaluation.thresholds import calibrate, valid_target
from streamkws.model import Model


@dataclass(frozen=True)
class Calibration:
    """A model with new thresholds, and what was found in choosing them.

    model: its provenance says what the thresholds were chosen on.
    target_fa_per_h: false accepts per hour that each keyword may have. confidence: how sure that is elsewhere, or 0.
    hours, n_files: of negative audio.
    before, after: [keyword], at the old and at the new threshold, without noise.
    unreached: keywords that have more false accepts than they may at every threshold up to 1.
    skipped: files that could not be read, each with the reason. notes: what else was left out.
    """

    model: Model
    target_fa_per_h: float
    confidence: float
    hours: float
    n_files: int
    before: dict[str, OperatingPoint]
    after: dict[str, OperatingPoint]
    unreached: tuple[str, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def n_allowed(self) -> int:
        """False accepts that each keyword may have in these hours."""
        most = int(self.target_fa_per_h * self.hours) + 1
        return next(n for n in range(most, -1, -1) if n / self.hours <= self.target_fa_per_h)

    @property
    def remarks(self) -> list[str]:
        """What the hours can show, in sentences."""
        hours, target = self.hours, self.target_fa_per_h
        chosen = "The thresholds were chosen on this very audio: expect more false accepts in other audio."
        lowered = [k for k, point in self.after.items() if point.threshold < self.before[k].threshold]
        below = f"Those of {', '.join(lowered)} are lower than before; confidence and lowest keep them up."
        if self.confidence:
            return [
                f"The thresholds are for at most {target:g} false accepts per hour in other audio of this kind, "
                f"{100 * self.confidence:g} % sure, by the highest scores in {hours:.2f} h.",
                below if lowered else "Audio of another kind may have more.",
            ]
        if lowered:
            chosen = f"{chosen} {below}"
        if self.n_allowed:
            return [
                f"In {hours:.2f} h of negative audio, at most {target:g} per hour allows each keyword "
                f"{self.n_allowed} false accepts.",
                chosen,
            ]
        rest = [f"{ZERO_COUNT_BOUND / target:.0f} h without one would show < {target:g}."] if target else []
        return [
            f"In {hours:.2f} h of negative audio, one false accept is {1 / hours:.2g} per hour, more than the "
            f"{target:g} asked for: the thresholds are the lowest without any.",
            f"None in {hours:.2f} h shows only < {ZERO_COUNT_BOUND / hours:.2g} per hour (95 %).",
            *rest,
            chosen,
        ]


def calibrate_model(
    model: Model,
    negatives: Sequence[Path],
    target_fa_per_h: float,
    confidence: float = 0.0,
    lowest: float = 0.0,
    recordings: Path | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Set each keyword's threshold for at most so many false accepts per hour.

    negatives: audio files, and folders of them, in which no keyword is spoken; read in blocks, so of any length.
    confidence, lowest: as for thresholds.calibrate.
    recordings: folder of folders that are named for their keyword, to count misses in; None counts none.
    progress: called with (what is done, steps done, steps in all).
    Raises ConfigError for settings out of their range, for no negative audio, and for recordings that are none.
    """
    valid_target(target_fa_per_h, confidence, lowest)
    files, left_out = _negative_files(negatives)
    spoken, notes = ([], []) if recordings is None else read_recordings(recordings, model.keywords)
    corpus = Corpus(Path(), tuple(spoken), tuple(files), (*left_out, *notes))
    scored = score_corpus([model], corpus, snrs_db=(None,), progress=progress)
    old = evaluate_scores(model, scored, progress=progress)
    thresholds = calibrate(old, target_fa_per_h, confidence, lowest)
    n_files = len(scored.negatives)
    how = "".join(f", {name} {value:g}" for name, value in (("confidence", confidence), ("lowest", lowest)) if value)
    text = (
        f"thresholds for at most {target_fa_per_h:g} false accepts per hour and keyword{how}, set on "
        f"{scored.hours:.2f} h of other audio in {n_files} files, {date.today().isoformat()}"
    )
    calibrated = model.with_settings(thresholds=thresholds, provenance={"calibration": text})
    return Calibration(
        model=calibrated,
        target_fa_per_h=target_fa_per_h,
        confidence=confidence,
        hours=scored.hours,
        n_files=n_files,
        before=old.at_own_thresholds,
        after=evaluate_scores(calibrated, scored, progress=progress).at_own_thresholds,
        unreached=tuple(
            k
            for k, curve in old.curves[CLEAN].items()
            if curve.index_at(target_fa_per_h) is None and not (confidence and thresholds[k] < HIGHEST)
        ),
        skipped=scored.skipped,
        notes=scored.notes,
    )


def _negative_files(places: Sequence[Path]) -> tuple[list[NegativeFile], list[str]]:
    """List the audio files, and say what is left out of a folder that is a corpus."""
    files: list[NegativeFile] = []
    notes: list[str] = []
    for place in places:
        if place.is_file():
            files.append(NegativeFile(place, place.name, place.name))
            continue
        if not place.is_dir():
            raise ConfigError(f"{place}: expected a folder of audio without keywords, got nothing")
        for name in (KEYWORD_SET, *IGNORED_SETS):
            if (place / name).is_dir():
                notes.append(f"{place.name}/{name} was left out: it is no negative audio")
        found = [
            path for path in audio_files(place) if path.relative_to(place).parts[0] not in (KEYWORD_SET, *IGNORED_SETS)
        ]
        if not found:
            raise ConfigError(f"{place}: expected audio files in this folder ({' '.join(AUDIO_SUFFIXES)}), found none")
        files += [NegativeFile(path, path.relative_to(place).as_posix(), place.name) for path in found]
    return files, notes
