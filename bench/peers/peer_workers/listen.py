"""Runs one wake-word engine for bench/peers/peers.py, in that engine's environment.

Every engine has the same four methods: `prepare` converts a block of samples to the engine's input (not timed), `push`
feeds it (timed), `hits` reads the detections from push's result, `reset` clears the state. An engine that only scores
has a fifth, `scores`: the score of each keyword, from push's result.
"""

import ctypes
import os
import sys
import tempfile

import numpy as np
from protocol import load_latency, pin, resident_mb, serve

latency = load_latency()
MICRO_MODELS = {"alexa": "alexa"}
OPEN_MODELS = {"alexa": "alexa"}
PHONES = {"snowboy": "S N OW B OY"}
"""Words that PocketSphinx' dictionary lacks."""
QUIET_S = 1.0
"""An engine that only scores says a keyword again once its score was below the threshold for this long."""


class Once:
    """Makes detections of scores, which reach their threshold in many blocks of one keyword."""

    def __init__(self, block_samples):
        self.quiet_blocks = QUIET_S * latency.SAMPLE_RATE / block_samples
        self.n_blocks = 0
        self.last_above = {}

    def hits(self, scores, thresholds):
        """(keyword, score) of each keyword that is said again in this block. scores, thresholds: by keyword."""
        self.n_blocks += 1
        said = []
        for keyword, score in scores.items():
            if score < thresholds[keyword]:
                continue
            if self.n_blocks - self.last_above.get(keyword, -self.quiet_blocks - 1) > self.quiet_blocks:
                said.append((keyword, float(score)))
            self.last_above[keyword] = self.n_blocks
        return said


class Streamkws:
    """Detector.push. model: name or path."""

    block_samples = 160

    def __init__(self, keywords, model="wakewords"):
        import streamkws

        self.detector = streamkws.Detector(streamkws.load_model(model))
        self.keywords = [keyword for keyword in keywords if keyword in self.detector.model.keywords]
        self.push = self.detector.push

    def prepare(self, block):
        return block

    def hits(self, result):
        return [(hit.keyword, hit.score) for hit in result]

    def reset(self):
        self.detector.reset()


class Porcupine:
    """pv_porcupine_process of the C library, without the Python wrapper. sensitivity: 0 to 1, for all keywords."""

    block_samples = 512

    def __init__(self, keywords, sensitivity=0.5):
        import pvporcupine

        self.keywords = [keyword for keyword in keywords if keyword in pvporcupine.KEYWORD_PATHS]
        self.sensitivity = sensitivity
        self.reset()

    def reset(self):
        import pvporcupine

        if hasattr(self, "wrapper"):
            self.wrapper.delete()
        self.wrapper = pvporcupine.create(keywords=self.keywords, sensitivities=[self.sensitivity] * len(self.keywords))
        process = ctypes.CDLL(pvporcupine.LIBRARY_PATH).pv_porcupine_process
        process.argtypes, process.restype = [ctypes.c_void_p] * 3, ctypes.c_int
        handle = ctypes.cast(self.wrapper._handle, ctypes.c_void_p)
        self.index = ctypes.c_int(-1)
        index = ctypes.byref(self.index)
        self.push = lambda address: process(handle, address, index)

    def prepare(self, block):
        self.block = block  # must outlive the call that is given its address
        return block.ctypes.data

    def hits(self, result):
        if result != 0:
            raise RuntimeError(f"pv_porcupine_process returned {result}")
        return [(self.keywords[self.index.value], None)] if self.index.value >= 0 else []


class MicroWakeWord:
    """MicroWakeWordFeatures and one MicroWakeWord per keyword, wired as its own command line does.

    threshold: for all keywords; None is each model's own.
    """

    block_samples = 160

    def __init__(self, keywords, threshold=None):
        import pymicro_wakeword as micro

        self.keywords = [keyword for keyword in keywords if keyword in MICRO_MODELS]
        self.features = micro.MicroWakeWordFeatures()
        self.words = {
            keyword: micro.MicroWakeWord.from_builtin(micro.Model(MICRO_MODELS[keyword])) for keyword in self.keywords
        }
        self.thresholds = {
            keyword: word.probability_cutoff if threshold is None else threshold for keyword, word in self.words.items()
        }
        self.once = Once(self.block_samples)

    def reset(self):
        self.features.reset()
        for word in self.words.values():
            word.reset()
        self.once = Once(self.block_samples)

    def prepare(self, block):
        return block.tobytes()

    def push(self, block):
        scores = {}
        for features in self.features.process_streaming(block):
            for keyword, word in self.words.items():
                scores[keyword] = word.process_streaming_prob(features)
        return scores

    def scores(self, result):
        """The score of each keyword that the block completed one of."""
        return result

    def hits(self, result):
        return self.once.hits(self.scores(result), self.thresholds)


class OpenWakeWord:
    """Model.predict on its own frames of 80 ms. framework: "tflite" (its default) or "onnx"."""

    block_samples = 1280

    def __init__(self, keywords, threshold=0.5, framework="tflite"):
        self.keywords = [keyword for keyword in keywords if keyword in OPEN_MODELS]
        self.thresholds = dict.fromkeys(self.keywords, threshold)
        self.framework = framework
        self.reset()

    def reset(self):
        from openwakeword.model import Model

        np.random.seed(0)  # noqa: NPY002 - it fills its buffers with this generator's noise
        names = [OPEN_MODELS[keyword] for keyword in self.keywords]
        self.model = Model(wakeword_models=names, inference_framework=self.framework)
        self.push = self.model.predict
        self.once = Once(self.block_samples)

    def prepare(self, block):
        return block

    def scores(self, result):
        """The score of each keyword."""
        return {keyword: result[OPEN_MODELS[keyword]] for keyword in self.keywords}

    def hits(self, result):
        return self.once.hits(self.scores(result), self.thresholds)


class PocketSphinx:
    """Keyphrase search of all keywords at once. threshold: of each phrase, as its kws file has it."""

    block_samples = 1024

    def __init__(self, keywords, threshold=1e-20):
        from pocketsphinx import Config, Decoder

        self.keywords = list(keywords)
        self.decoder = Decoder(Config(lm=None, loglevel="FATAL"))
        for word, phones in PHONES.items():
            if self.decoder.lookup_word(word) is None:
                self.decoder.add_word(word, phones, True)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "keyphrases")
            with open(path, "w", encoding="ascii") as file:
                file.writelines(f"{keyword} /{threshold:g}/\n" for keyword in self.keywords)
            self.decoder.add_kws("keywords", path)
        self.decoder.activate_search("keywords")
        self.decoder.start_utt()

    def reset(self):
        self.decoder.end_utt()
        self.decoder.reinit_feat()
        self.decoder.start_utt()

    def prepare(self, block):
        return block.tobytes()

    def push(self, block):
        self.decoder.process_raw(block, False, False)
        heard = self.decoder.hyp()
        if heard is None:
            return None
        self.decoder.end_utt()
        self.decoder.start_utt()
        return heard.hypstr

    def hits(self, result):
        return [] if result is None else [(keyword, None) for keyword in self.keywords if keyword in result]


ENGINES = {
    engine.__name__.lower(): engine for engine in (Streamkws, Porcupine, MicroWakeWord, OpenWakeWord, PocketSphinx)
}


class Worker:
    """The commands."""

    def __init__(self):
        self.engine = None
        self.bare_mb = resident_mb()

    def open(self, engine, keywords, **options):
        """Start an engine. options: what it alone understands."""
        self.engine = ENGINES[engine](keywords, **options)
        return {"block_samples": self.engine.block_samples, "keywords": self.engine.keywords}

    def memory(self):
        """Megabytes held before the engine was loaded, and now."""
        return {"bare_mb": self.bare_mb, "resident_mb": resident_mb()}

    def time(self, samples, out, n_blocks, block_samples, live):
        """Time blocks of a recording, int16 samples in an .npy file; out gets the nanoseconds of each."""
        blocks = latency.cut(np.load(samples), block_samples)
        prepared = [self.engine.prepare(block) for block in blocks]
        timing = latency.measure(self.engine.push, prepared, block_samples, n_blocks, live)
        np.save(out, timing.ns)
        return {"cpu_s": timing.cpu_s, "period": len(blocks)}

    def detect(self, samples):
        """[keyword, seconds heard when it was said, score or None] of each detection in a recording."""
        length = self.engine.block_samples
        found = []
        for end, result in enumerate(self._results(samples), start=1):
            hits = self.engine.hits(result)
            found += [[keyword, end * length / latency.SAMPLE_RATE, score] for keyword, score in hits]
        return found

    def scores(self, samples, out):
        """Write the score of each block and keyword, (n, K) float32, to an .npy file; NaN where there is none."""
        rows = [self.engine.scores(result) for result in self._results(samples)]
        keywords = self.engine.keywords
        np.save(out, np.array([[row.get(keyword, np.nan) for keyword in keywords] for row in rows], np.float32))

    def _results(self, samples):
        """What a fresh engine's push returns for each block of a recording, its last block filled up with zeros."""
        self.engine.reset()
        recording, length = np.load(samples), self.engine.block_samples
        recording = np.pad(recording, (0, -recording.size % length))
        for block in latency.cut(recording, length):
            yield self.engine.push(self.engine.prepare(block))


def main():
    """Answer the bench. Argument: the core to run on, or none."""
    pin(int(sys.argv[1]) if len(sys.argv) > 1 else None)
    worker = Worker()
    commands = (worker.open, worker.memory, worker.time, worker.detect, worker.scores)
    serve({command.__name__: command for command in commands})


if __name__ == "__main__":
    main()
