"""plots: what is drawn is what the API says; pictures of odd recordings; the commands that write them."""

from __future__ import annotations

import os
import sys
import xml.dom.minidom
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import random_model, run_python
from tones import KEYWORDS, RATE, tones, tones_model

from streamkws import cli
from streamkws.detector import Detector
from streamkws.errors import ConfigError, MissingExtraError
from streamkws.evaluation import traces
from streamkws.evaluation.counting import Figures
from streamkws.evaluation.curves import DetCurve
from streamkws.evaluation.operating_points import OperatingPoint
from streamkws.evaluation.results import Evaluation, KeywordScores
from streamkws.evaluation.traces import trace
from streamkws.model_file import save_model

pytest.importorskip("matplotlib")

from streamkws.evaluation import plots
from streamkws.evaluation.plots import style
from streamkws.evaluation.plots import trace as trace_picture

SPOKEN = ("low tone", "high tone", "low tone")


@pytest.fixture(scope="module")
def model():
    return tones_model()


@pytest.fixture
def path(tmp_path):
    """A recording of three tones."""
    soundfile.write(tmp_path / "a.wav", tones(*SPOKEN), RATE)
    return tmp_path / "a.wav"


def panel(figure, name):
    """The axes that are named so, left of them."""
    (found,) = (axes for axes in figure.axes if name in [text.get_text() for text in axes.texts])
    return found


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [t.get_text() for t in figure.texts]


class TestDrawTrace:
    def test_lines_are_the_posteriors_and_thresholds(self, model, path):
        heard = trace(path, Detector(model, {"high tone": 0.75}))
        figure = plots.draw_trace(heard)
        for k, keyword in enumerate(KEYWORDS):
            line, threshold, marks = panel(figure, keyword).lines
            assert np.array_equal(line.get_xdata(), heard.steps_s)
            assert np.array_equal(line.get_ydata(), np.clip(heard.posteriors[:, k], *style.SCORE_LIMITS))
            assert list(threshold.get_ydata()) == [heard.thresholds[keyword]] * 2
            hits = [hit for hit in heard.detections if hit.keyword == keyword]
            assert list(marks.get_xdata()) == [hit.peak for hit in hits]
            assert marks.get_ydata() == pytest.approx([hit.score for hit in hits], abs=1e-3)
            assert f"threshold {heard.thresholds[keyword]:.3f}" in texts(figure)
        assert heard.thresholds == {"low tone": 0.6, "high tone": 0.75}
        scores = [f"{hit.score:.3f}" if hit.score < 0.9995 else ">0.999" for hit in heard.detections]
        assert set(scores) <= set(texts(figure))
        assert panel(figure, "waveform").get_xlim() == (0, heard.end_s)

    def test_spectrogram_is_the_frames_at_their_time_and_frequency(self, model, path):
        heard = trace(path, Detector(model))
        axes = panel(plots.draw_trace(heard), "log-mel")
        (image,) = axes.images
        assert np.array_equal(image.get_array(), heard.frames.T)
        assert image.get_extent()[:2] == list(heard.mel_s)
        labels = dict(zip([text.get_text() for text in axes.get_yticklabels()], axes.get_yticks(), strict=True))
        assert heard.mel_hz[round(labels["1 kHz"])] == pytest.approx(1000, rel=0.15)
        low = heard.frames[(heard.frames.argmax(axis=1) < labels["1 kHz"]) & (heard.frames.max(axis=1) > -5)]
        assert len(low)  # the low tone lies below the 1 kHz tick

    def test_keywords_that_are_not_listened_for_are_left_out(self, model, path):
        figure = plots.draw_trace(trace(path, Detector(model, keywords=["high tone"])))
        assert "high tone" in texts(figure) and "low tone" not in texts(figure)

    def test_of_many_keywords_the_nearest_are_drawn(self, monkeypatch):
        many = random_model(keywords=tuple(f"word {n}" for n in range(20)))
        heard = trace(0.1 * tones("low tone"), Detector(many, 0.99999))
        figure = plots.draw_trace(heard)
        highest = sorted(many.keywords, key=lambda k: -heard.posteriors[:, many.keywords.index(k)].max())
        drawn = [text for text in texts(figure) if text.startswith("word ")]
        detected = {hit.keyword for hit in heard.detections}
        assert len(drawn) >= trace_picture.MOST_LANES and {*highest[: len(drawn) - len(detected)]} <= set(drawn)
        assert drawn == [keyword for keyword in many.keywords if keyword in drawn]
        assert any(f"{20 - len(drawn)} keywords left out" in text for text in texts(figure))

    def test_no_detection_is_said(self, model, path):
        assert "no detection" in texts(plots.draw_trace(trace(path, Detector(model, 1.0))))

    @pytest.mark.parametrize("samples", [np.zeros(RATE, np.float32), tones("low tone")[:400]], ids=["silence", "frame"])
    @pytest.mark.parametrize("suffix", style.SUFFIXES)
    def test_silence_and_a_single_frame(self, model, tmp_path, samples, suffix):
        figure = plots.draw_trace(trace(samples, Detector(model)))
        assert plots.save(figure, tmp_path / f"x{suffix}").stat().st_size > 5000

    def test_labels_that_would_overlap_are_left_out(self, model):
        samples = np.concatenate([tones(*SPOKEN[:1]) for _ in range(20)])
        heard = trace(samples, Detector(model))
        assert len(heard.detections) == 20
        assert not any(
            text in (f"{heard.detections[5].score:.3f}", ">0.999") for text in texts(plots.draw_trace(heard))
        )

    def test_time_is_labelled_in_minutes_from_two_on(self, model, path):
        def labels(span_s):
            figure = plots.draw_trace(trace(path, Detector(model)))
            axes = figure.axes[-1]
            trace_picture._label_time(axes, span_s)
            axes.set_xlim(0, span_s)
            return axes.get_xlabel(), [axes.xaxis.get_major_formatter()(x, 0) for x in axes.get_xticks() if x >= 0][:3]

        assert labels(5)[0] == "time (s)"
        assert labels(150) == ("time (min:s)", ["0:00", "0:15", "0:30"])
        assert labels(3000) == ("time (min:s)", ["0:00", "5:00", "10:00"])
        assert labels(4 * 3600) == ("time (h:min:s)", ["0:00:00", "0:30:00", "1:00:00"])

    def test_any_file_name_can_be_drawn(self, model, path, tmp_path):
        strange = os.fsdecode("a$x_1$\n日本".encode() + b"\xff") + "long" * 30 + ".wav"
        heard = trace(path, Detector(model))
        figure = plots.draw_trace(traces.Trace(**{**heard.__dict__, "name": strange, "model": "<m>&"}))
        for suffix in style.SUFFIXES:
            plots.save(figure, tmp_path / f"x{suffix}")
        drawn = xml.dom.minidom.parse(str(tmp_path / "x.svg")).documentElement.toxml()
        assert "a$x_1$\\n" in drawn and "\\udcff" in drawn and "…" in drawn and "heard by &lt;m&gt;&amp;" in drawn


class TestSave:
    def test_the_same_bytes_again(self, model, path, tmp_path):
        for suffix in style.SUFFIXES:
            written = [
                plots.save(plots.draw_trace(trace(path, Detector(model))), tmp_path / f"{n}{suffix}").read_bytes()
                for n in range(2)
            ]
            assert written[0] == written[1]
            assert len(written[0]) < 150_000

    def test_format_by_suffix(self, model, path, tmp_path):
        figure = plots.draw_trace(trace(path, Detector(model)))
        assert plots.save(figure, tmp_path / "x.PNG").read_bytes().startswith(b"\x89PNG")
        text = plots.save(figure, tmp_path / "x.svg").read_text(encoding="utf-8")
        assert text.startswith("<?xml") and "low tone" in text
        assert "dc:date" not in text

    def test_the_users_own_settings_change_nothing(self, model, path, tmp_path):
        import matplotlib

        heard = trace(path, Detector(model))
        before = plots.save(plots.draw_trace(heard), tmp_path / "x.svg").read_bytes()
        with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.fonttype": "path"}):
            assert plots.save(plots.draw_trace(heard), tmp_path / "x.svg").read_bytes() == before
            assert matplotlib.rcParams["font.size"] == 20

    def test_names_that_are_no_pictures(self, tmp_path):
        with pytest.raises(ConfigError, match=r"x.pdf: expected the name of a picture, which ends in .png or .svg"):
            plots.picture_path("x.pdf")
        with pytest.raises(ConfigError, match=r"x.png: expected a folder that exists, .*no does not"):
            plots.picture_path(tmp_path / "no" / "x.png")

    def test_pyplot_and_its_global_figures_are_not_loaded(self):
        assert (
            run_python("import sys, streamkws.evaluation.plots; print('matplotlib.pyplot' in sys.modules)") == "False"
        )

    def test_without_matplotlib(self, monkeypatch):
        monkeypatch.delitem(sys.modules, "streamkws.evaluation.plots")
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(MissingExtraError, match=r'pictures need matplotlib: pip install "streamkws\[plot\]"'):
            import streamkws.evaluation.plots  # noqa: F401


def evaluation(name, threshold, n_recordings=4, keywords=("go", "stop now"), conditions=("clean", "10 dB")):
    """Figures made up: 2 hours; the curve of "stop now" is that of "go", halved in misses."""
    curves, scores = {}, {}
    for n, condition in enumerate(conditions):
        curves[condition] = {}
        scores[condition] = {}
        for k, keyword in enumerate(keywords):
            misses = (0, 1 if k else 2, 2 if k else 4)
            curves[condition][keyword] = DetCurve(
                keyword,
                condition,
                n_recordings,
                2.0,
                (0.2, 0.5, 0.8),
                misses if n_recordings else (0, 0, 0),
                (8, 2 + n, 0),
            )
            scores[condition][keyword] = KeywordScores((0.3, 0.6, 0.95, 1.0)[:n_recordings], (0.0,) * 7198 + (0.5, 1.0))
    index = (0.2, 0.5, 0.8).index(threshold)
    shipped = {
        keyword: OperatingPoint(keyword, threshold, None, True, True, {
            condition: Figures(
                n_recordings, curves[condition][keyword].misses[index], 2.0,
                curves[condition][keyword].false_accepts[index], {}, {},
            )
            for condition in conditions
        })
        for keyword in keywords
    }  # fmt: skip
    counts = dict.fromkeys(keywords, n_recordings)
    return Evaluation(name, {}, keywords, "some/dev", 0, conditions, counts, 2.0, {}, curves, {}, shipped, scores)


def det_panel(figure, title):
    (found,) = (axes for axes in figure.axes if axes.get_title() == title)
    lines = [line for line in found.lines if len(line.get_xdata()) > 1]
    marks = [line for line in found.lines if len(line.get_xdata()) == 1]
    zero_x, zero_y = found.get_xticks()[0], found.get_yticks()[0]
    assert found.get_xticklabels()[0].get_text() == "0"
    return found, lines, marks, zero_x, zero_y


class TestDrawDet:
    def test_curves_are_the_miss_rates_and_marks_the_models_own_thresholds(self):
        figure = plots.draw_det([evaluation("m.f32", 0.5), evaluation("m.w4a8", 0.8)])
        axes, lines, marks, zero_x, zero_y = det_panel(figure, "stop now")
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        curve = evaluation("m", 0.5).curves["clean"]["stop now"]
        assert [line.get_drawstyle() for line in lines] == ["steps-post"] * 4
        for rate, miss in zip(lines[0].get_xdata(), lines[0].get_ydata(), strict=True):
            assert miss == (100 * curve.miss_at(0 if rate == zero_x else rate) or zero_y)
        assert list(lines[0].get_xdata()) == [zero_x, 1.0, 4.0, axes.get_xlim()[1]]
        assert list(lines[0].get_ydata()) == [50, 25, zero_y, zero_y]
        assert [(*mark.get_xdata(), *mark.get_ydata()) for mark in marks] == [
            (1.0, 25.0), (1.5, 25.0), (zero_x, 50.0), (zero_x, 50.0)
        ]  # fmt: skip
        assert zero_x < 1 / 2 and axes.get_xlim()[0] < zero_x
        assert zero_y < 100 / 4 and axes.get_ylim()[0] < zero_y

    def test_the_mean_is_over_the_keywords_at_equal_false_accepts(self):
        figure = plots.draw_det([evaluation("m.f32", 0.5)])
        _, lines, marks, zero_x, _ = det_panel(figure, "mean of the keywords")
        assert list(lines[0].get_xdata())[:2] == [zero_x, 1.0]
        assert list(lines[0].get_ydata())[:2] == [75, 37.5]
        assert (*marks[0].get_xdata(), *marks[0].get_ydata()) == (1.0, 37.5)

    def test_models_and_conditions_differ_in_more_than_colour(self):
        figure = plots.draw_det([evaluation(f"m.{n}", 0.5) for n in range(3)])
        _, lines, marks, *_ = det_panel(figure, "go")
        assert len({mark.get_marker() for mark in marks}) == 3
        assert len({line.get_linestyle() for line in lines}) == 2
        assert len({line.get_linewidth() for line in lines}) == 3
        legend = [
            text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()
        ]
        assert legend == ["m.0", "m.1", "m.2", "without noise", "with noise at 10 dB"]

    def test_histograms_hold_every_score(self):
        figure = plots.draw_det([evaluation("m.f32", 0.5)])
        for label, n in (("recordings", 4), ("seconds", 7200)):
            axes = next(axes for axes in figure.axes if axes.get_ylabel() == label)
            counts, edges, _ = axes.patches[-1].get_data()
            assert counts.sum() == n
            assert (edges[0], edges[-1]) == style.SCORE_LIMITS
            assert list(axes.lines[0].get_xdata()) == [0.5, 0.5]

    def test_caption_says_how_much_was_heard(self):
        caption = " ".join(texts(plots.draw_det([evaluation("m.f32", 0.5)]))).replace("\n", " ")
        assert "dev: 8 keyword recordings, 2.00 h of other audio. One false accept in it is 0.5 per hour" in caption
        assert "none shows only < 1.5 (95 %)" in caption

    @pytest.mark.parametrize("suffix", style.SUFFIXES)
    def test_one_keyword_other_keywords_no_recordings_no_noise(self, tmp_path, suffix):
        one = plots.draw_det([evaluation("m.f32", 0.5, keywords=("go",), conditions=("clean",))])
        assert [axes.get_title() for axes in one.axes if axes.get_title()] == ["go"]
        other = plots.draw_det([evaluation("a", 0.5), evaluation("b", 0.8, keywords=("$x$", "go", "c", "d", "e"))])
        assert len(det_panel(other, "stop now")[1]) == len(det_panel(other, "$x$")[1]) == 2
        none = plots.draw_det([evaluation("m.f32", 0.5, n_recordings=0)])
        for n, figure in enumerate((one, other, none)):
            assert plots.save(figure, tmp_path / f"{n}{suffix}").stat().st_size > 5000


class TestCommands:
    @pytest.fixture
    def run(self, capsys, monkeypatch, tmp_path, model):
        """Run a command in a folder of its own, where m.safetensors is the tones model."""
        monkeypatch.chdir(tmp_path)
        save_model(model, "m.safetensors")

        def call(*arguments):
            capsys.readouterr()
            code = cli.main([*map(str, arguments)])
            captured = capsys.readouterr()
            return code, captured.out, captured.err

        return call

    def plot(self, run, *arguments):
        return run("plot", "--model", "m.safetensors", *arguments)

    def test_picture_in_the_current_folder(self, run, path):
        assert self.plot(run, path) == (0, "a.png\n", "")
        assert Path("a.png").read_bytes().startswith(b"\x89PNG")
        message = "streamkws: a.png: exists already; --out a.png replaces it\n"
        assert self.plot(run, path) == (2, "", message)
        assert self.plot(run, path, "--out", "a.png") == (0, "a.png\n", "")

    def test_part_keyword_and_threshold(self, run, path):
        options = ("--start", "0.5", "--end", "3", "--keyword", "low tone", "--threshold", "0.71", "--out", "x.svg")
        assert self.plot(run, path, *options) == (0, "x.svg\n", "")
        drawn = Path("x.svg").read_text(encoding="utf-8")
        assert "low tone" in drawn and "threshold 0.710" in drawn and "high tone" not in drawn

    def test_stereo_at_another_rate(self, run):
        stereo = np.repeat(tones("low tone")[:, np.newaxis], 2, axis=1)
        soundfile.write("stereo.wav", stereo, 44100)
        assert self.plot(run, "stereo.wav", "--out", "x.svg")[0] == 0

    def test_damaged_file_is_drawn_and_reported(self, run, path):
        path.write_bytes(path.read_bytes()[:-20000])
        code, out, err = self.plot(run, path)
        assert (code, out, err.count("\n")) == (1, "a.png\n", 1)
        assert "cut off" in err

    @pytest.mark.parametrize(
        ("arguments", "code", "text"),
        [
            (("nothing.wav",), 1, "streamkws: nothing.wav: No such file or directory\n"),
            (("a.wav", "--out", "x.pdf"), 2, "x.pdf: expected the name of a picture, which ends in .png or .svg"),
            (("a.wav", "--out", "no/x.png"), 2, "no/x.png: expected a folder that exists, no does not"),
            (("a.wav", "--keyword", "mid tone"), 2, "unknown keyword 'mid tone'"),
            (("a.wav", "--start", "9"), 2, "expected a start and an end with posteriors between them"),
            (("a.wav", "--start", "soon"), 2, "invalid float value: 'soon'"),
        ],
    )
    def test_trouble_is_one_line(self, run, path, arguments, code, text):
        got, out, err = self.plot(run, *arguments)
        assert (got, out, err.count("\n")) == (code, "", 1)
        assert text in err
        assert not list(Path().glob("*.png"))

    def test_too_short_is_one_line(self, run):
        soundfile.write("short.wav", np.zeros(200), RATE)
        code, out, err = self.plot(run, "short.wav")
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "short.wav: expected at least 0.025 s of audio" in err

    def test_progress_of_a_long_file(self, run, path, monkeypatch):
        shown = []
        monkeypatch.setattr(cli.plot, "LONG_FILE_S", 1.0)
        monkeypatch.setattr(cli.output.Bar, "show", lambda bar, *call: shown.append(call))
        assert self.plot(run, path, "--end", "2", "--out", "x.png")[0] == 0
        assert shown[-1] == ("a.wav", 2, 2)

    def test_without_matplotlib(self, run, path, monkeypatch):
        monkeypatch.delitem(sys.modules, "streamkws.evaluation.plots")
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        message = 'streamkws: pictures need matplotlib: pip install "streamkws[plot]"\n'
        assert self.plot(run, path) == (1, "", message)
        assert run("evaluate", "m.safetensors", "corpus", "--plot", "x.png") == (1, "", message)

    def test_evaluate_plot(self, run):
        for name, keywords in (("low_tone/a_1.wav", SPOKEN[:1]), ("high_tone/b_1.wav", SPOKEN[1:2])):
            place = Path("corpus/wakewords") / name
            place.parent.mkdir(parents=True)
            soundfile.write(place, tones(*keywords), RATE)
        Path("corpus/hiss").mkdir()
        soundfile.write("corpus/hiss/0.wav", np.random.default_rng(1).normal(0, 0.01, 3 * RATE), RATE)
        code, out, err = run("evaluate", "m.safetensors", "corpus", "--plot", "det.svg")
        assert (code, err) == (0, "")
        assert "tones.f32" in out
        drawn = Path("det.svg").read_text(encoding="utf-8")
        assert all(text in drawn for text in ("mean of the keywords", "low tone", "high tone", "tones.f32"))
        code, out, err = run("evaluate", "m.safetensors", "corpus", "--plot", "det.gif")
        assert (code, out) == (2, "") and "det.gif: expected the name of a picture" in err
