"""Recordings that PyAV decodes: what libsndfile does not read."""

import builtins
import io

import numpy as np
import pytest
import soundfile
from conftest import refused
from tones import RATE, hits, tones, tones_model

from streamkws import detect
from streamkws.audio import AudioFile, read_audio
from streamkws.containers import is_container

FORMATS = {
    "talk.m4a": ("ipod", "aac", 16000),
    "talk.mp4": ("mp4", "aac", 44100),
    "talk.webm": ("webm", "libopus", 48000),
    "talk.wma": ("asf", "wmav2", 44100),
    "talk.amr": ("amr", "libopencore_amrnb", 8000),
    "talk.aac": ("adts", "aac", 16000),
}
"""FFmpeg's names of container and codec, and a rate."""


def encode(path, samples, form, codec, rate):
    """Write 16 kHz samples as a file of some format, by PyAV; skips the test where its FFmpeg lacks the encoder."""
    av = pytest.importorskip("av")
    try:
        av.Codec(codec, "w")
    except av.FFmpegError:
        pytest.skip(f"this FFmpeg has no {codec}")
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        if codec == "wmav2":
            stream.bit_rate = 64_000
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="flt", layout="mono")
        frame.rate = RATE
        to_codec = av.AudioResampler(stream.format, stream.layout, rate, frame_size=stream.codec_context.frame_size)
        for part in (*to_codec.resample(frame), *to_codec.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def recording(tmp_path):
    def make(name, *keywords):
        return encode(tmp_path / name, tones(*(keywords or ("low tone", "high tone", "low tone"))), *FORMATS[name])

    return make


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_said_in_it_is_heard(name, recording):
    words = ("low tone", "low tone") if name == "talk.amr" else ("low tone", "high tone", "low tone")
    path = recording(name, *words)
    model = tones_model()
    found = list(detect(path, model))
    wanted = list(detect(tones(*words), model))
    assert [hit.keyword for hit in found] == [hit.keyword for hit in wanted]
    for hit, other in zip(found, wanted, strict=True):
        assert abs(hit.end - other.end) < 0.3  # codecs smear
    assert abs(len(read_audio(path)) - len(tones(*words))) < 0.15 * RATE


def test_blocks_of_any_length_give_the_same(recording):
    path = recording("talk.m4a")
    with AudioFile(path, block_samples=777) as audio:
        assert audio.duration_s is None and audio.n_frames is None and not audio.seeks_exactly
        blocks = list(audio)
    assert np.array_equal(np.concatenate(blocks), read_audio(path))


def test_a_film_without_sound_and_a_damaged_file_are_one_line(recording, tmp_path):
    av = pytest.importorskip("av")
    silent = tmp_path / "silent.mp4"
    with av.open(str(silent), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert refused(lambda: AudioFile(silent)) == f"{silent}: no audio in it"
    cut = tmp_path / "cut.m4a"
    cut.write_bytes(recording("talk.m4a").read_bytes()[:500])
    assert refused(lambda: AudioFile(cut)).startswith(f"{cut}: cannot be read by PyAV (")


def test_without_pyav_the_error_names_the_extra(tmp_path, monkeypatch, run, model_path, audio):
    path = tmp_path / "talk.m4a"
    path.write_bytes(b"\0\0\0 ftypM4A \0\0\0\0")
    true_import = builtins.__import__

    def no_av(name, *rest):
        if name == "av":
            raise ImportError(name)
        return true_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_av)
    message = 'm4a, mp4, webm, wma and amr need PyAV: pip install "streamkws[formats]"'
    assert refused(lambda: AudioFile(path)) == f"{path}: {message}"
    code, out, err = run("detect", "--json", "--model", model_path, str(path), audio("a.wav", "low tone"))
    assert code == 1 and err == f"streamkws: {path}: {message}\n"
    assert [hit["keyword"] for hit in hits(out)] == ["low tone"]


def test_files_that_libsndfile_reads_are_none():
    for form in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "W64", "RF64", "CAF", "AU"):
        file = io.BytesIO()
        soundfile.write(file, np.zeros(8000), 16000, format=form)
        assert not is_container(file.getvalue()[:16]), form
