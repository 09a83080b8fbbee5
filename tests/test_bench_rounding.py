"""bench/quantization/rounding.py: its table, on a corpus of chirps."""

import re

import numpy as np
from conftest import random_model
from synthetic_corpus import KEYWORDS, write_part

from streamkws.evaluation.examples import read_examples


def test_every_width_has_both_ways_of_rounding(bench_module, tmp_path, monkeypatch, capsys):
    for seed, part in ((1, "train"), (2, "dev")):
        write_part(tmp_path / part, seed)
    (tmp_path / "dev" / "hiss").rename(tmp_path / "dev" / "hiss_noise")
    bench = bench_module("bench.quantization.rounding")
    full = random_model(1, keywords=KEYWORDS)
    monkeypatch.setattr(bench, "load_widths", lambda: [full])
    monkeypatch.setattr(bench, "SETS", ("wakewords", "speech"))
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- rounding -->\nstale\n<!-- /rounding -->\nafter\n")
    monkeypatch.setattr("bench.report.README", readme)
    monkeypatch.setattr("sys.argv", ["rounding.py", "--corpus", str(tmp_path), "--write"])
    bench.main()
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == ["f32", "w8a8", "w4a8", "w3a8", "w2a8"]
    assert all(len(row) == 9 for row in rows) and all(row[6] for row in rows[3:]) and rows[2][6] == ""
    sizes = [int(row[1].replace(",", "")) for row in rows[2:]]
    assert sizes == sorted(sizes, reverse=True)
    n_files = sum(len(list((tmp_path / "train" / name).rglob("*.flac"))) for name in ("wakewords", "speech"))
    seconds = read_examples(full, [tmp_path / "train" / name for name in ("wakewords", "speech")]).seconds
    assert f"on {seconds:.0f} s of {n_files} of train's files (wakewords, speech)" in out
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    assert re.search(r"Written by `.*rounding.py", text)


def test_long_and_many_recordings_are_not_read_whole(tmp_path, monkeypatch):
    import streamkws.evaluation.examples as module

    write_part(tmp_path, 1)
    full = random_model(1)
    whole = read_examples(full, [tmp_path / "wakewords", tmp_path / "speech"])
    assert (whole.n_files, whole.skipped) == (10, ())
    assert sorted({len(one) for one in whole.log_mels}) == [148, 398]  # 1.5 s, and pieces of 4 s
    monkeypatch.setattr(module, "MOST_FILES", 3)
    monkeypatch.setattr(module, "MOST_S", 15.0)
    less = read_examples(full, [tmp_path / "wakewords", tmp_path / "speech"])
    assert less.n_files == 3 and less.seconds == 1.5 + 1.5 + 5.0
    assert np.array_equal(less.log_mels[0], whole.log_mels[0])
