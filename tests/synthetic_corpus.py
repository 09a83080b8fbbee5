"""A corpus in the layout of the real one, synthesized: keywords are chirps, other words are tones."""

import csv

import numpy as np
import soundfile

KEYWORDS = ("go up", "down")


def chirp(start_hz, end_hz, seconds=0.6):
    t = np.arange(int(seconds * 16000)) / 16000
    phase = 2 * np.pi * np.cumsum(np.linspace(start_hz, end_hz, t.size)) / 16000
    return 0.4 * np.sin(phase) * np.sin(np.pi * t / seconds) ** 0.5


def write_set(folder, names, parts, labels):
    """Long files of equal parts with their segments.csv; names: file of each part."""
    folder.mkdir(parents=True)
    rows, files = [], {}
    for name, part, label in zip(names, parts, labels, strict=True):
        start = sum(p.size for p in files.setdefault(name, []))
        files[name].append(part)
        rows.append((name, start, start + part.size, label, "s", "made"))
    for name, pieces in files.items():
        soundfile.write(folder / name, np.concatenate(pieces), 16000, subtype="PCM_16")
    with (folder / "segments.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "start", "end", "label", "speaker", "source"), *rows])


def write_part(root, seed):
    """wakewords (2 keywords, 2 speakers and an unknown one), speech, words, hiss, rooms."""
    rng = np.random.default_rng(seed)
    for keyword, (low, high) in zip(KEYWORDS, ((400, 1500), (1800, 500)), strict=True):
        folder = root / "wakewords" / keyword.replace(" ", "_")
        folder.mkdir(parents=True)
        for name in ("000_a", "000_b", "001_c", "p001"):
            clip = rng.standard_normal(24000) * 1e-3
            place = int(rng.integers(2000, 12000))
            word = chirp(low * rng.uniform(0.9, 1.1), high * rng.uniform(0.9, 1.1))
            clip[place : place + word.size] += word
            soundfile.write(folder / f"{name}.flac", clip, 16000, subtype="PCM_16")
    speech = [rng.standard_normal(64000) * 0.1 * np.abs(np.sin(np.arange(64000) / 3000)) for _ in range(3)]
    write_set(root / "speech", ["0.flac", "0.flac", "1.flac"], speech, ["speech"] * 3)
    words = [0.3 * np.sin(np.arange(12000) * hz / 16000 * 2 * np.pi) for hz in (300, 600, 1200, 300)]
    write_set(root / "words", ["0.flac"] * 4, words, ["low", "mid", "high", "low"])
    write_set(root / "hiss", ["0.flac"], [rng.standard_normal(80000) * 0.05], ["noise"])
    (root / "rooms").mkdir()
    response = rng.standard_normal((4000, 2)) * np.exp(-np.arange(4000) / 800)[:, None] * 0.2
    response[50] = 0.9
    soundfile.write(root / "rooms" / "room.flac", response, 16000, subtype="PCM_16")
