"""README.md and docs/: every code block runs or is checked, every link leads somewhere, every name in them exists."""

from __future__ import annotations

import argparse
import configparser
import dataclasses
import inspect
import io
import os
import re
import shlex
import shutil
import sys
import threading
from pathlib import Path
from typing import NamedTuple, get_args, get_type_hints

import numpy as np
import pytest
import soundfile
from conftest import random_model

import streamkws as kws
from streamkws import cli
from streamkws.scanning.dataset import Dataset
from streamkws.scanning.hearing import Piece, hear
from streamkws.scanning.listing import Recording
from streamkws.server import ServerConfig
from streamkws.training.recipe import Recipe
from streamkws.training.recipe_file import load_recipe
from streamkws.training.stages import read_chain

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "streamkws" / "demo.flac"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README_LINES = 250
LANGUAGES = ("", "python", "toml", "ini", "text")
"""Of code blocks. None is for the shell; text is what a program prints, or a layout of files."""
CI = "CI runs it, or the same with another command behind it"
PLAYER = "needs a sound server"
NOT_RUN = {
    r"python3 -m venv \.venv && \.venv/bin/pip install -q \. && \.venv/bin/streamkws demo": CI,
    r'python3 -m venv \.venv && \.venv/bin/pip install -q -c constraints\.txt -e "\.\[test\]" && .*pytest': CI,
    r"python3 -m venv \.venv && \. \.venv/bin/activate": "makes an environment",
    r"python3 -m venv \.venv-satellite && \.venv-satellite/bin/pip install wyoming-satellite": CI,
    r"apt install libportaudio2": "needs root",
    r"python wheels/make\.py dist/( --target x86_64-macos)?": "takes minutes",
    r"python -m streamkws\.native\.build library/": "takes a minute; tests/test_native.py builds one",
    r"systemctl enable --now streamkws": "needs root and systemd",
    r"dask (scheduler|worker tcp://host:8786 --nworkers auto --nthreads 1)": "would wait for others",
    r"curl http://127\.0\.0\.1:9400/(metrics|health)": "asks a server that runs; tests/test_server_metrics.py does",
    r"pulseaudio -n .*": PLAYER,
    r"paplay streamkws/demo\.flac": PLAYER,
    r"python -m wyoming_satellite --uri \S+ --wake-uri \S+ --wake-word-name .*": "a program of others",
}
"""Lines that no test runs, and why."""
PARSED = {
    "serve": "would take a port of this machine; its settings are checked",
    "train": "takes hours; its recipe and stage are checked",
    "voices": "downloads half a gigabyte",
    "new": "downloads as much, and takes half an hour",
    "mine": "takes a quarter of an hour",
    "fetch-teacher": "downloads",
    "export": "needs a library of compiled kernels, which a checkout lacks; tests/test_c_export.py has one",
    "scan": "starts a cluster; tests/test_scanning.py runs it, and so do the page's blocks of Python",
}
"""Commands of streamkws that are not run, only their arguments are parsed, and why."""
SHORTENED = {"bench": ["--seconds", "0.2"]}
"""Options with which a test runs a command that takes long."""


class Block(NamedTuple):
    """A code block: its page, the number of its first line, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def code_blocks(page: Path) -> list[Block]:
    found, start, language = [], 0, ""
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith("```") and not start:
            start, language = number + 1, line.removeprefix("```")
        elif line.startswith("```"):
            found.append(Block(page, start, language, "\n".join(lines[start - 1 : number - 1]) + "\n"))
            start = 0
    assert not start, f"{page.name}: the code block of line {start} has no end"
    return found


BLOCKS = [block for page in PAGES for block in code_blocks(page)]


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def name_in_toml(text: str) -> str:
    return str(tomllib.loads(text)["name"])


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """The folder of a reader who has what the pages speak of; it is the working directory."""
    samples, rate = soundfile.read(DEMO, dtype="int16")
    noise = (np.random.default_rng(1).standard_normal(4 * rate) * 300).astype(np.int16)
    (tmp_path / "streamkws").mkdir()
    shutil.copy(DEMO, tmp_path / "streamkws")
    shutil.copy(DEMO, tmp_path / "kitchen.flac")

    def write(path, audio):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / path, audio, rate)

    write("recordings/short.flac", samples[: 5 * rate])
    write("office/noise.flac", np.tile(noise, 52))  # a confidence needs 200 s
    for path in ("corpus/dev/room_noise/noise.flac", "corpus/train/sentences/anna_01.flac"):
        write(path, noise)
    for path in ("office.ogg", "tv.ogg"):
        write(path, noise)
    for hit in kws.detect(DEMO, kws.load_model("wakewords")):
        stretch = samples[int((hit.start - 0.5) * rate) : int((hit.end + 0.5) * rate)]
        for folder in ("words", "corpus/dev/wakewords"):
            write(f"{folder}/{hit.keyword.replace(' ', '_')}/000_0.flac", stretch)
    (tmp_path / "models").mkdir()
    shutil.copy(ROOT / "models" / "wakewords.toml", tmp_path / "models")
    shutil.copy(ROOT / "models" / "wakewords.w4a8.safetensors", tmp_path / "models" / "robot.w4a8.safetensors")
    robot = random_model(keywords=("hey robot", "lights on")).quantize(4, 8)
    kws.save_model(robot, tmp_path / "hey_robot.safetensors")
    for block in of("toml"):
        (tmp_path / f"{name_in_toml(block.text)}.toml").write_text(block.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class FakeMicrophone(kws.FileSource):
    """Hears the demo, whatever the device is; takes the arguments that a microphone takes."""

    at_end: type[BaseException] | None = None

    def __init__(self, *args, **settings):
        inspect.signature(kws.Microphone).bind(*args, **settings)
        super().__init__("kitchen.flac")
        self.name, self.dropped = "fake microphone", 0

    def __iter__(self):
        yield from super().__iter__()
        if self.at_end:
            raise self.at_end


class PressesCtrlC(FakeMicrophone):
    at_end = KeyboardInterrupt


def test_every_block_has_a_language_that_a_test_knows():
    assert len(BLOCKS) > 40
    for block in BLOCKS:
        assert block.language in LANGUAGES, f"{block}: no rule for {block.language!r}"
        assert block.text.strip(), block


# Python


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_runs(block, reader, monkeypatch, capsys):
    text = block.text
    if "Server" in text:  # which serves until it is told to end
        monkeypatch.setattr("streamkws.server.Server.serve", lambda server: server.stop())
        text = text.replace("10400", "0")
    if "hits.parquet/" in text:
        write_hits(reader / "hits.parquet")
    monkeypatch.setattr(kws, "Microphone", FakeMicrophone)
    exec(compile("\n" * (block.line - 1) + text, str(block.page), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    if "kitchen.flac" in text or "Microphone" in text:
        for keyword in kws.load_model("wakewords").keywords:
            assert keyword in printed, f"{block} does not print {keyword}"


def write_hits(folder):
    """Write what a scan of the demo would."""
    model = kws.load_model("wakewords")
    heard = hear(kws.Detector(model), Piece(Recording("demo", str(DEMO))))
    with Dataset(folder, model, model.thresholds) as dataset:
        dataset.commit("part", [Recording("demo", str(DEMO))], [heard])


def test_there_are_examples_of_every_way_to_embed():
    text = "".join(block.text for block in of("python"))
    for name in (
        "kws.detect(", "detector.hear(", "detector.audio(", "kws.listen(", "async for", "detector.push(",
        "kws.scan(", "detector.lost(", "BatchDetector(", "kws.posteriors(", "copy.deepcopy(", "Server(",
    ):  # fmt: skip
        assert name in text, name


# The shell


def shell_lines(page: Path) -> list[tuple[str, str]]:
    """The commands in a page's shell blocks, comments left out: where each stands, and the command."""
    return [
        (f"{page.name}:{number}", command)
        for block in code_blocks(page)
        if not block.language
        for number, line in enumerate(block.text.splitlines(), block.line)
        if (command := re.sub(r"(^|\s+)# .*", "", line).strip())
    ]


def check_pip(words):
    """Check an installation from the checkout: the files and the extras that it names."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    installed = re.fullmatch(r"\.\[([\w,]+)\]", words[-1])
    assert installed, f"expected an installation of this package with extras, got {words[-1]}"
    assert set(installed[1].split(",")) <= set(extras)
    assert words[:-1] in (["install"], ["install", "-c", "constraints.txt"]), words


def check_parsed(arguments):
    """Check what the arguments of a command that is not run lead to."""
    command = arguments.run.__name__.strip("_")
    if command == "serve":
        name = "this machine" if arguments.zeroconf == "" else arguments.zeroconf
        limits = {"max_clients": arguments.clients, "idle_s": arguments.idle}
        ServerConfig(arguments.uri, near=arguments.near, metrics=arguments.metrics, zeroconf=name, **limits)
    if command == "new" and not arguments.plan:  # what it would have made, for the lines that follow
        name = arguments.out or Path(arguments.phrases[0].replace(" ", "_"))
        Path(name).parent.mkdir(exist_ok=True)
        shutil.copy(
            ROOT / "models" / "wakewords.w4a8.safetensors", f"{str(name).removesuffix('.safetensors')}.w4a8.safetensors"
        )
    if command == "train":
        chain = read_chain(arguments.config, arguments.held_out)
        if chain is None:
            assert not arguments.stage
            load_recipe(arguments.config)
        elif arguments.stage:
            chain.needed_by(arguments.stage)


def run_streamkws(words, piped, monkeypatch):
    """Run a command of streamkws, or parse its arguments where it is in PARSED."""
    if words[0] in PARSED and "--list" not in words:
        check_parsed(cli.parser().parse_args(words))
        return
    if piped:
        pcm = soundfile.read(DEMO, dtype="int16")[0].tobytes()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pcm)))
    assert cli.main([*words, *SHORTENED.get(words[0], [])]) == 0


def run_line(line, monkeypatch):
    """Run a line of a shell block, or check it; fails where no rule covers it."""
    if any(re.fullmatch(pattern, line) for pattern in NOT_RUN):
        return
    *before, command = line.split(" | ")
    words = shlex.split(command.removeprefix(".venv/bin/"))
    if ">>" in words:
        words = words[: words.index(">>")]
    if words[0] == "streamkws" and (not before or before[0].startswith("ffmpeg ")):
        run_streamkws(words[1:], bool(before), monkeypatch)
    elif words[0] == "pip" and not before:
        check_pip(words[1:])
    elif found := re.search(r"pytest (\S+)$", line):
        assert (ROOT / found[1]).exists(), found[1]
    else:
        pytest.fail("no rule of test_docs.py covers it")


@pytest.fixture
def desktop(reader, monkeypatch):
    """What listen finds on the reader's machine: PortAudio, a microphone, and a notify-send that notes what it says."""
    from fake_portaudio import FakePortAudio

    monkeypatch.setitem(sys.modules, "sounddevice", FakePortAudio())
    monkeypatch.setattr("streamkws.sources.Microphone", PressesCtrlC)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"y\nr\nn\n")))  # for review
    tool = reader / "bin" / "notify-send"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$1" >> {shlex.quote(str(reader))}/notified\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name if page.parent != ROOT else "front page")
def test_shell_blocks_run(page, reader, desktop, monkeypatch, capsys):
    for where, line in shell_lines(page):
        try:
            run_line(line, monkeypatch)
        except BaseException as error:  # SystemExit, too, and pytest's own
            pytest.fail(f"{where}: {line}\n{error!r}\n{capsys.readouterr().err[-500:]}")
    if page.name == "live.md":
        for thread in threading.enumerate():
            if thread.name.startswith("command for"):  # which outlive listen
                thread.join()
        keywords = kws.load_model("wakewords").keywords
        assert sorted((reader / "notified").read_text().splitlines()) == sorted(keywords)
        assert len(list((reader / "heard").glob("*.flac"))) >= len(keywords)


def test_no_rule_is_idle():
    lines = [line for page in PAGES for _, line in shell_lines(page)]
    for pattern in NOT_RUN:
        assert any(re.fullmatch(pattern, line) for line in lines), pattern
    for command in PARSED:
        assert any(re.search(rf"streamkws {command}\b", line) for line in lines), command


# Recipes and units


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_recipe_loads(block, reader):
    path = reader / f"{name_in_toml(block.text)}.toml"
    if read_chain(path) is None:
        load_recipe(path)


@pytest.mark.parametrize("block", of("ini"), ids=str)
def test_unit_is_one(block):
    unit = configparser.RawConfigParser()
    unit.optionxform = str
    unit.read_string(block.text)
    assert unit.sections() == ["Unit", "Service", "Install"]
    program, *words = shlex.split(unit["Service"]["ExecStart"])
    assert program.endswith("/bin/streamkws")
    check_parsed(cli.parser().parse_args(words))


# Links and names


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(path), f"{page.name}: {target}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def spans(page: Path) -> list[str]:
    """The code within a page's text."""
    return re.findall(r"`([^`\n]+)`", prose(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name if page.parent != ROOT else "front page")
def test_names_in_the_text_exist(page):
    actions = [action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction)]
    commands = actions[0].choices
    options = {option for command in commands.values() for option in command._option_string_actions}
    keys = recipe_keys()
    assert {"data.negatives", "quantization.weights"} <= keys
    for span in spans(page):
        for option in re.findall(r"(?<!\S)--[a-z-]+", span):
            assert option in options, span
        if found := re.match(r"streamkws ([a-z-]+)", span):
            assert found[1] in commands, span
        if found := re.match(r"((?:data|training|augment|export|quantization)\.\w+)(?!\S*\.py)", span):
            assert found[1] in keys, span
        for name in re.findall(r"\bkws\.(\w+)", span):
            assert hasattr(kws, name), span
        if found := re.match(r"(?:python )?((?:streamkws|bench|tests|models)/[\w/.]*)", span):
            assert (ROOT / found[1]).exists(), span


def recipe_keys() -> set[str]:
    """The keys of a recipe's sections, as section.key."""
    hints = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(Recipe).items()}  # a section may be None
    configs = {name: choices[0] for name, choices in hints.items() if dataclasses.is_dataclass(choices[0])}
    return {f"{name}.{field.name}" for name, config in configs.items() for field in dataclasses.fields(config)}
