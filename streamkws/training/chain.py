"""Running the stages of a recipe: each once, in order, from where the last call stopped.

The folder of a stage, runs/<recipe>/<stage>, holds stage.json: the settings that the stage was begun with, and whether
it is done. A stage whose settings changed since then, or whose inputs did, is refused.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from streamkws.errors import ConfigError
from streamkws.model_file import save_model
from streamkws.training.checkpoint import CHECKPOINT
from streamkws.training.export import trained_model
from streamkws.training.loop import train_network
from streamkws.training.recipe_file import RUNS, entries_text
from streamkws.training.stages import MODEL_FILE, TRAIN, Chain
from streamkws.whole import write_whole

MARK = "stage.json"


def run_chain(chain: Chain, corpus: str | Path | None = None, fresh: bool = False, until: str = "") -> None:
    """Run the stages of a recipe.

    corpus: replaces the recipe's data.corpus. until: a stage; it and what it needs is run, "" for all stages.
    fresh: starts that stage from the beginning; without a stage, all of them except those that a recipe
    with a part held out shares with the original.
    Raises ConfigError, before anything is run, where a stage was begun with other settings or names a path that is not
    there; and what the stages raise.
    """
    names = chain.needed_by(until) if until else list(chain.stages)
    restarted: set[Path] = set()
    if fresh:
        folders = [chain.folder(name) for name in names]
        own = {folder for folder in folders if folder.parent == RUNS / chain.name}
        restarted = {chain.folder(until)} if until else own
        if not restarted <= own:
            raise ConfigError(f"{folders[-1]} is the original recipe's; start it anew without --held-out")
        for folder in restarted:
            _check_disposable(folder)
    for name in names:
        if chain.folder(name) not in restarted:
            _check_unchanged(chain, name)
        _check_paths(chain, name)
    for name in names:
        folder = chain.folder(name)
        if folder in restarted:
            shutil.rmtree(folder, ignore_errors=True)
            restarted.remove(folder)  # another stage may share it
            _outdate_dependants(chain, name, restarted)
        if _read_mark(folder).get("done"):
            _say(f"stage {name}: done")
            continue
        _say(f"stage {name}: {folder}")
        _write_mark(chain, name, done=False)
        _run_stage(chain, name, corpus)
        _write_mark(chain, name, done=True)


def stage_table(chain: Chain, until: str = "") -> str:
    """A line for each stage: name, kind, whether it is done, and what it needs."""
    rows = [("stage", "kind", "state", "needs")]
    for name in chain.needed_by(until) if until else chain.stages:
        mark, stage = _read_mark(chain.folder(name)), chain.stages[name]
        state = "done" if mark.get("done") else "begun" if mark else "to do"
        if mark and mark.get("fingerprint") != chain.fingerprint(name):
            state = "changed"
        rows.append((name, stage.kind, state, ", ".join(stage.needs) or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for *cells, needs in rows:
        lines.append("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), needs]))
    return "\n".join(lines)


def _run_stage(chain: Chain, name: str, corpus: str | Path | None) -> None:
    folder, stage, entries = chain.folder(name), chain.stages[name], chain.resolved(name)
    if stage.kind == TRAIN:
        text = entries_text(chain.flat_entries(name), f"Stage {name} of {chain.path.name}")
        train_network(chain.recipes[name], folder, text, corpus)
        save_model(trained_model(folder / CHECKPOINT, chain.recipes[name]), folder / MODEL_FILE)
        return
    # the tools are imported where a stage needs them
    settings = entries[stage.kind]
    if stage.kind == "fetch":
        from streamkws.voices.fetch import fetch_teacher

        fetch_teacher(folder)
    elif stage.kind == "voices":
        from streamkws.voices.speakers import synthesize

        speakers, rest = settings["speakers"], {key: value for key, value in settings.items() if key != "speakers"}
        synthesize(folder, n_speakers=speakers, keywords=tuple(entries["keywords"]), show=_show_tenths, **rest)
    else:
        from streamkws.voices.mining import mine

        models = list(dict.fromkeys(settings["models"]))
        mine(folder, **{**settings, "models": models}, show=_show_tenths)


def _check_disposable(folder: Path) -> None:
    """Raise ConfigError for a folder with contents that no stage has made."""
    if folder.exists() and not (folder / MARK).exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} has no {MARK}, so no stage made it; it is not deleted")


def _outdate_dependants(chain: Chain, name: str, restarted: set[Path]) -> None:
    """Mark the stages that learned from a stage as changed: they are refused until they are started anew, too.

    Nothing of theirs is lost. restarted: folders that are started anew in this call anyway.
    """
    for other, stage in chain.stages.items():
        folder = chain.folder(other)
        if name not in stage.needs or folder in restarted or not (folder / MARK).exists():
            continue
        mark = _read_mark(folder)
        inputs = {**mark.get("inputs", {}), name: ""}
        _store_mark(folder, {**mark, "inputs": inputs, "fingerprint": ""})


def _read_mark(folder: Path) -> dict[str, Any]:
    """The contents of stage.json; empty when there is no such file."""
    path = folder / MARK
    if not path.exists():
        return {}
    try:
        mark = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        mark = None
    if not isinstance(mark, dict):
        raise ConfigError(f"{path} is damaged; --fresh starts the stage anew")
    return mark


def _write_mark(chain: Chain, name: str, done: bool) -> None:
    folder = chain.folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    mark = {
        "done": done,
        "fingerprint": chain.fingerprint(name),
        "settings": chain.settings(name),
        "inputs": chain.inputs(name),
    }
    _store_mark(folder, mark)


def _store_mark(folder: Path, mark: dict[str, Any]) -> None:
    """Write stage.json."""
    write_whole(folder / MARK, (json.dumps(mark, indent=1) + "\n").encode())


def _check_unchanged(chain: Chain, name: str) -> None:
    """Raise ConfigError where the folder of a stage was begun with other settings."""
    folder = chain.folder(name)
    mark = _read_mark(folder)
    if not mark or mark.get("fingerprint") == chain.fingerprint(name):
        return
    changes = _differences(mark.get("settings"), chain.settings(name))
    if not changes:
        inputs = mark.get("inputs", {})
        changes = [f"{need} is another" for need, wanted in chain.inputs(name).items() if inputs.get(need) != wanted]
    what = changes[0] if changes else "it is another recipe"
    raise ConfigError(f"{folder} was made by another recipe ({what}); --fresh --stage {name} starts it anew")


def _check_paths(chain: Chain, name: str) -> None:
    """Raise ConfigError for a path of a stage that is not there: better now than after the hours before it."""
    for where, path in chain.paths(name):
        if not Path(path).exists():
            raise ConfigError(f"stage {name!r}: expected {where} to be there, found no {path} in {Path.cwd()}")


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    """Which entries differ, as texts."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [
            text
            for key in keys
            for text in _differences(before.get(key), now.get(key), f"{where}.{key}" if where else key)
        ]
    return [] if before == now else [f"{where} was {_shown(before)}, is {_shown(now)}"]


def _shown(value: Any) -> str:
    return "not given" if value is None else json.dumps(value)


def _show_tenths(what: str, done: float, total: float) -> None:
    """Print a line for each tenth of a tool's files. done, total: files, done one by one."""
    if int(10 * done / total) > int(10 * (done - 1) / total):
        _say(f"{what}: {done:.0f} of {total:.0f} files")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
