"""The library of kernels compiled ahead of time computes what numba's kernels do, and an unfit one never runs."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import DEMO, KEYWORDS, random_model, run_python, speechlike
from test_detector_together import mixed_models

from streamkws import Detector, kernels, load_model, save_model
from streamkws.kernels import codes, front_end, network, packing, path, smoother
from streamkws.native import build
from streamkws.native.calls import library_calls
from streamkws.native.library import DESCRIPTION, FOLDER, OTHERWISE, find_library, load_library

DETECT = (
    "import sys, streamkws as kws;"
    "print([(hit.keyword, hit.score, hit.end) for hit in kws.detect({path!r}, kws.load_model('wakewords'))],"
    "sorted({{'numba', 'llvmlite'}} & set(sys.modules)))"
)


@pytest.fixture
def folder(native_library):
    return native_library


@pytest.fixture
def calls(folder):
    return library_calls(load_library(folder))


@pytest.fixture
def elsewhere(folder, tmp_path, monkeypatch):
    """A copy of the library in the folder where this process looks for one."""
    for name in OTHERWISE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert find_library().instructions == kernels.INSTRUCTIONS
    return tmp_path


# The same numbers


@pytest.mark.parametrize("bits", [4, 8])
def test_products_are_exact(calls, bits):
    rng = np.random.default_rng(bits)
    for n_rows, n_codes in ((8, 8), (24, 40), (72, 104), (136, 264)):
        weights = rng.integers(0, 2**bits, (n_rows, n_codes)).astype(np.uint8)
        x = rng.integers(0, 256, n_codes).astype(np.uint8)
        out, packed = np.zeros(n_rows, np.int32), packing.pack_rows(weights, bits)
        if bits == 8:
            calls.matvec_u8_u8(packed, 0, n_rows, x, 0, n_codes, int(x.sum()), out)
        else:
            calls.matvec_u8_u4(packed, 0, n_rows, x, 0, n_codes, out)
        assert np.array_equal(out, weights.astype(np.int64) @ x.astype(np.int64))


def test_quantized_and_float_vectors_are_numbas(calls):
    found = []
    for quantize, add in (
        (codes.quantize_vector, codes.add_matvec_f32),
        (calls.quantize_vector, calls.add_matvec_f32),
    ):
        rng = np.random.default_rng(0)
        vector, ranges, sums = np.zeros(77, np.uint8), np.zeros((3, 2), np.float32), np.zeros(3, np.int32)
        values = rng.standard_normal(77).astype(np.float32)
        quantize(values, np.float32(15), vector, ranges, sums, 2)
        out = np.zeros(5, np.float32)
        add(rng.standard_normal(5 * 33).astype(np.float32), 0, 5, values, 3, 33, out)
        found.append((vector, ranges, sums, out))
    for mine, other in zip(*found, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("bits", [8, 4, 32])
def test_every_stage_gives_numbas_bits(calls, bits):
    model = random_model()
    model = model if bits == 32 else model.quantize(bits, 8)
    samples = speechlike(32_000)
    found = []
    for stages in (
        (front_end.push_samples, network.push_frames, smoother.push_posteriors, smoother.flush_smoother),
        (calls.push_samples, calls.push_frames, calls.push_posteriors, calls.flush_smoother),
    ):
        push_samples, push_frames, push_posteriors, flush = stages
        stage, state, decision = (
            model.new_front_end(),
            model.new_state(),
            model.new_smoother(dict.fromkeys(KEYWORDS, 0.3)),
        )
        frames = np.zeros((220, 20), np.float32)
        n_frames = push_samples(stage.tables, stage.state, samples, frames)
        posteriors, smoothed = np.zeros((110, 3), np.float32), np.zeros((110, 3), np.float32)
        n_steps = push_frames(model.network, state.state, 2, frames[:n_frames], posteriors)
        events = np.zeros(400, kernels.EVENT).view(np.recarray)
        n = push_posteriors(decision.tables, decision.state, posteriors[:n_steps], events, smoothed[:n_steps])
        n_last = flush(decision.tables, decision.state, events[n:])
        assert n > 0
        found.append((frames, posteriors, smoothed, np.array(events), np.array([n_frames, n_steps, n, n_last])))
    for mine, other in zip(*found, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_the_whole_path_gives_numbas_events(calls, model, dtype):
    samples = speechlike(48_000)
    samples = np.rint(samples * 32767).astype(np.int16) if dtype == np.int16 else samples
    heard = []
    for detect in (path.detect, calls.detect):
        detector, said = Detector(model, 0.3), []
        for start in range(0, samples.size, 333):
            block = samples[start : start + 333]
            pair = (block, kernels.NO_FLOATS) if dtype == np.int16 else (kernels.NO_PCM, block)
            n = detect(detector._address, *pair)
            said += detector._events[0][:n].tolist()
        heard.append((said, detector.heard_s))
    assert heard[0] == heard[1]
    assert heard[0][0]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_several_models_give_numbas_events(calls, dtype):
    samples = speechlike(48_000)
    samples = np.rint(samples * 32767).astype(np.int16) if dtype == np.int16 else samples
    models, heard = mixed_models(), []
    for detect_together in (path.detect_together, calls.detect_together):
        detector, said = Detector(models), [[] for _ in models]
        for start in range(0, samples.size, 333):
            block = samples[start : start + 333]
            pair = (block, kernels.NO_FLOATS) if dtype == np.int16 else (kernels.NO_PCM, block)
            n = detect_together(detector._address, *pair)
            assert n == detector._n_events.sum()
            for its, events, n_its in zip(said, detector._events, detector._n_events, strict=True):
                its += events[:n_its].tolist()
        heard.append((said, detector.heard_s))
    assert heard[0] == heard[1]
    assert all(heard[0][0])


def test_unusable_samples_are_told(calls, model):
    block = np.array([0.0, np.nan], np.float32)
    detector, several = Detector(model), Detector(mixed_models())
    assert calls.detect(detector._address, kernels.NO_PCM, block) == -1
    assert calls.detect_together(several._address, kernels.NO_PCM, block) == -1


# Called by Python


@pytest.mark.parametrize("arguments", [(), (1,), (1, b"", b"", b"")], ids=len)
def test_too_few_or_too_many_arguments_are_refused(calls, arguments):
    with pytest.raises(TypeError, match="bad argument type for built-in operation"):
        calls.detect(*arguments)


@pytest.mark.parametrize("arguments", [("1", b"", b""), (1, 2, b""), (1, b"", 2)], ids=str)
def test_arguments_of_other_types_are_refused(calls, arguments):
    with pytest.raises(TypeError):
        calls.detect(*arguments)


def test_a_buffer_is_given_back(calls, model):
    detector, samples = Detector(model), bytearray(320)
    for other in (b"", 2):
        try:
            calls.detect(detector._address, samples, other)
        except TypeError:
            assert other == 2
        samples.extend(b"\0\0")  # which fails while somebody holds the buffer


def test_other_threads_run_meanwhile(calls, model):
    """Detectors of one model in threads hear what one alone does."""
    samples = np.rint(speechlike(48_000) * 32767).astype(np.int16)
    heard = {}

    def listen(name):
        detector, said = Detector(model, 0.3), []
        for start in range(0, samples.size, 160):
            n = calls.detect(detector._address, samples[start : start + 160], kernels.NO_FLOATS)
            said += detector._events[0][:n].tolist()
        heard[name] = said

    threads = [threading.Thread(target=listen, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard[0] and all(said == heard[0] for said in heard.values())


# A process with a library


def test_a_process_with_a_library_hears_the_same_and_loads_no_compiler(folder):
    script = DETECT.format(path=str(DEMO))
    expected = [(hit.keyword, hit.score, hit.end) for hit in kws_detect()]
    assert run_python(script, **{FOLDER: str(folder)}) == f"{expected} []"
    assert run_python(f"import sys; sys.modules['numba'] = None; {script}", **{FOLDER: str(folder)}).startswith("[(")
    assert run_python(script, **{FOLDER: ""}) == f"{expected} ['llvmlite', 'numba']"


def test_a_process_with_a_library_hears_several_models_and_loads_no_compiler(folder, tmp_path):
    models, samples = mixed_models(), speechlike(60_000)
    for place, model in enumerate(models):
        save_model(model, tmp_path / f"{place}.safetensors")
    np.save(tmp_path / "samples.npy", samples)
    script = (
        "import copy, pathlib, sys, numpy as np, streamkws as kws; folder = pathlib.Path(sys.argv[1]);"
        "samples = np.load(folder / 'samples.npy');"
        "detector = kws.Detector(sorted(folder.glob('*.safetensors'))); hits = detector.push(samples[:30_001]);"
        "detector = copy.copy(detector); hits += detector.push(samples[30_001:]) + detector.flush();"
        "print([(hit.keyword, hit.score, hit.peak) for hit in hits], sorted({'numba', 'llvmlite'} & set(sys.modules)))"
    )
    detector = Detector(models)
    hits = detector.push(samples) + detector.flush()
    assert {hit.keyword for hit in hits} > {"stop"}
    environment = {**os.environ, FOLDER: str(folder)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{[(hit.keyword, hit.score, hit.peak) for hit in hits]} []"


def kws_detect():
    from streamkws import detect

    return list(detect(DEMO, load_model("wakewords")))


@pytest.mark.parametrize("command", [("bench", "--seconds", "1"), ("detect", "--json", str(DEMO)), ("serve", "--help")])
def test_commands_load_no_compiler(folder, command):
    script = (
        f"import sys; from streamkws import cli; code = cli.main({command!r}); sys.stdout.flush();"
        "assert not {'numba', 'llvmlite'} & set(sys.modules), 'a compiler was loaded'; sys.exit(code)"
    )
    environment = {**os.environ, FOLDER: str(folder)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_library_and_numba_the_command_says_what_to_install():
    script = "import sys; sys.modules['numba'] = None; from streamkws import cli; sys.exit(cli.main(['demo']))"
    environment = {**os.environ, FOLDER: ""}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "streamkws: there are no compiled kernels for this machine here (a checkout itself has none): "
        'pip install "streamkws[jit]"'
    )


def test_numbas_switches_turn_the_library_off(elsewhere, monkeypatch):
    for name, value in zip(OTHERWISE, ("1", "generic", "+avx2"), strict=True):
        with monkeypatch.context() as context:
            context.setenv(name, value)
            assert find_library() is None
            context.setenv(name, "0")
            assert find_library() is not None
    script = "from streamkws import kernels; print(kernels.LIBRARY, kernels.INSTRUCTIONS)"
    assert run_python(script, **{FOLDER: str(elsewhere), "NUMBA_DISABLE_JIT": "1"}) == "None portable"


def test_no_library_is_nothing_to_tell(tmp_path, monkeypatch, caplog):
    for folder in (str(tmp_path), str(tmp_path / "none"), __file__, ""):
        monkeypatch.setenv(FOLDER, folder)
        assert find_library() is None
    assert caplog.text == ""


# Libraries that do not belong here


def described(folder, **changes):
    path = folder / DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def damaged(folder, damage):
    path = folder / json.loads((folder / DESCRIPTION).read_text())["file"]
    replaced(path, damage(path.read_bytes()))


def replaced(path, data):
    """Another file in its place: this process runs the one that was there."""
    path.unlink()
    path.write_bytes(data)


def flipped(data):
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


UNFIT = {
    "other sources": (lambda f: described(f, stamp="0" * 64), "it was compiled from other sources"),
    "other system": (lambda f: described(f, system="Plan9 mips"), "it is for Plan9 mips, this is "),
    "other CPU": (lambda f: described(f, kinds=[None] * 4), "it has no code for this CPU"),
    "a folder": (lambda f: (f / DESCRIPTION).unlink() or (f / DESCRIPTION).mkdir(), "it cannot be read (Is a dir"),
    "cut": (lambda f: damaged(f, lambda data: data[: len(data) // 2]), "is not as it was written"),
    "empty": (lambda f: damaged(f, lambda data: b""), "is not as it was written"),
    "a bit": (lambda f: damaged(f, flipped), "is not as it was written"),
    "missing": (lambda f: next(f.glob("*streamkws.*")).unlink(), "is missing"),
    "no text": (lambda f: (f / DESCRIPTION).write_bytes(b"\xff\x00"), "library.json is not a description"),
    "no JSON": (lambda f: (f / DESCRIPTION).write_text("{"), "library.json is not a description"),
    "a list": (lambda f: (f / DESCRIPTION).write_text("[]"), "library.json is not a description"),
    "other types": (lambda f: described(f, file=5), "library.json is not a description"),
    "no kinds": (lambda f: described(f, kinds=None), "library.json is not a description"),
    "fields missing": (lambda f: (f / DESCRIPTION).write_text("{}"), "library.json is not a description"),
}


@pytest.mark.parametrize(("make_unfit", "reason"), UNFIT.values(), ids=UNFIT)
def test_an_unfit_library_is_never_loaded_and_the_log_says_why(elsewhere, make_unfit, reason, caplog, monkeypatch):
    make_unfit(elsewhere)
    monkeypatch.setattr("ctypes.CDLL", lambda path: pytest.fail("loaded")) if reason != UNFIT["other CPU"][1] else None
    assert find_library() is None
    (record,) = caplog.records
    assert re.search(re.escape(reason), record.getMessage())
    assert len(record.getMessage().splitlines()) == 1


def test_without_sources_no_library_is_trusted(elsewhere, caplog, monkeypatch):
    monkeypatch.setattr("streamkws.native.library.COMPILED_BY", ("absent.py",))
    assert find_library() is None
    assert "there are no sources here to compare it with" in caplog.text


def test_a_library_of_something_else_is_not_used(elsewhere, caplog):
    """Bytes that its description was written for, but no library."""
    (elsewhere / "other.so").write_bytes(b"no library")
    described(elsewhere, file="other.so", sha256=hashlib.sha256(b"no library").hexdigest())
    assert find_library() is None
    assert "it cannot be loaded" in caplog.text


def test_numba_takes_over_and_says_so_once(elsewhere):
    described(elsewhere, stamp="")
    script = "import streamkws; from streamkws import kernels; streamkws.FrontEnd(); print(kernels.LIBRARY)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
    (line,) = done.stderr.splitlines()
    assert line.endswith("is not used, numba compiles them: it was compiled from other sources")


# Building


def test_what_cannot_be_built_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    with pytest.raises(build.BuildError, match=r"^expected a target of x86_64-linux, .*, got vax$"):
        build.build_library(tmp_path, "vax")
    with pytest.raises(build.BuildError, match=r"^expected CPUs of neon, udot, got avx2$"):
        build.build_library(tmp_path, "aarch64-linux", only=["avx2", "udot"])
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        build.BuildError, match=r"^expected the package ziglang to link a library for Darwin arm64 with"
    ):
        build.build_library(tmp_path, "aarch64-macos")
    monkeypatch.setattr(sys, "argv", ["build", str(tmp_path), "--target", "aarch64-macos"])
    with pytest.raises(SystemExit, match=r"found none$"):
        build.main()
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(build.BuildError, match=r"^expected a system of x86_64-linux, .*, got \w+ vax$"):
        build.build_library(tmp_path)


def test_a_failing_compiler_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_emit", lambda *_: [tmp_path / "absent.o"])
    with pytest.raises(build.BuildError, match=r"^\S+ failed: "):
        build.build_library(tmp_path)
