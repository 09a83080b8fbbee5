"""The tables of bench/quantization/quantization.py say what its records hold."""

import sys

import pytest


@pytest.fixture
def report(bench_module):
    return bench_module("bench.quantization.quantization_report")


@pytest.fixture
def bench(bench_module):
    return bench_module("bench.quantization.quantization")


def record(task, variant, seed, value, **changes):
    key = {"wakewords": "det_area", "commands": "error"}[task]
    sizes = {"parameters": 1000, "stored_bytes": 4000, "resident_bytes": 5000, "float_bytes": 4000}
    return {
        "task": task,
        "network": "dilated",
        "size": 100,
        "seed": seed,
        "variant": variant,
        key: value,
        **sizes,
        **changes,
    }


def test_changes_are_taken_seed_by_seed(report):
    results = report.Results(
        [
            record("commands", "f32-full", 2, 0.10),
            record("commands", "f32-full", 1, 0.06),
            record("commands", "w4a8-after", 1, 0.07),
            record("commands", "w4a8-after", 2, 0.12),
            record("commands", "w4a8-after", 3, 0.50),  # has nothing to be compared with
            record("wakewords", "f32-full", 1, 0.10),
            record("wakewords", "w4a8-after", 1, 0.11),
        ]
    )
    assert results.changes("commands", "dilated", "w4a8-after") == pytest.approx([1.0, 2.0])  # points
    assert results.changes("wakewords", "dilated", "w4a8-after") == pytest.approx([10.0])  # percent of f32
    assert results.changes("commands", "fully connected", "w4a8-after") == []


def test_means_say_how_many_seeds_they_are_of(report):
    assert report.mean_and_spread([6.0, 8.0]) == "7.00 ± 1.41"
    assert report.mean_and_spread([6.0], sign=True) == "+6.00 (1)"
    assert report.mean_and_spread([]) == "-"


def test_the_report_shows_bytes_saved_and_what_aware_training_won_back(report):
    records = [record("commands", "f32-full", seed, 0.06) for seed in (1, 2)]
    for variant, values in (("w8a8-after", (0.06, 0.06)), ("w4a8-after", (0.095, 0.105)), ("w4a8-aware", (0.07, 0.07))):
        records += [
            record("commands", variant, seed, value, stored_bytes=500, resident_bytes=1000)
            for seed, value in zip((1, 2), values, strict=True)
        ]
    text = report.report(report.Results(records))
    assert "| commands, dilated | w4a8 | 500 | 87.5 % | 1,000 | 80.0 % |" in text
    assert "aware training won back 75 % of the loss" in text
    assert "| w4a8, aware | - | - | 7.00 ± 0.00 | - |" in text


def test_the_report_tells_how_the_long_training_went(report):
    training = {"steps": 20000, "minutes": 28.4, "date": "2026-11-21"}
    long = record("commands", "f32-long", 1, 0.02, size=250, clips=2400.0, training=training)
    text = report.report(report.Results([long, record("commands", "w4a8-after-long", 1, 0.0225, size=250)]))
    assert "errs on 2.00 % of the 2,400 command clips of dev (w8a8 - %, w4a8 2.25 % without" in text
    assert "98.0 % right" in text
    assert "still to be done" in report.report(report.Results([record("commands", "f32-full", 1, 0.06)]))


def test_every_result_has_a_file_of_its_own_and_what_it_starts_from_is_made(bench):
    jobs = bench.jobs()
    checkpoints = [job.checkpoint for job in jobs]
    assert len(set(checkpoints)) == len(checkpoints)
    assert {job.needs for job in jobs if job.needs} <= set(checkpoints)
    names = {variant.name: variant for job in jobs for variant in job.variants}
    assert all(variant == names[variant.name] for job in jobs for variant in job.variants)


@pytest.mark.parametrize(("network", "size"), [(n, s) for n in ("dilated", "fully connected") for s in (50, 100, 250)])
def test_networks_have_about_the_parameters_they_are_named_by(bench, network, size):
    for task in ("wakewords", "commands"):
        parameters = bench.sizes(task, network, size, bench.FULL_PRECISION)["parameters"]
        assert 0.95 < parameters / (1000 * size) < 1.05


def test_four_bits_take_an_eighth_and_tables(bench):
    assert "bench.quantization.quantization_tasks" in sys.modules
    full = bench.sizes("commands", "dilated", 100, bench.FULL_PRECISION)
    small = bench.sizes("commands", "dilated", 100, bench.AWARE_ALL)
    assert full["stored_bytes"] == 4 * full["parameters"]
    assert 0.13 < small["stored_bytes"] / full["stored_bytes"] < 0.15
