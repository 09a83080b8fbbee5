"""A teacher: a network that knows speech, whose embeddings a small one learns to predict beside its keywords.

Google's speech embedding (Lin et al., "Training Keyword Spotters with Limited and Synthesized Speech Data", ICASSP
2020; Apache-2.0) was trained on thousands of speakers and keywords. It maps 76 frames of a mel spectrogram to 96
numbers every 80 ms. A network that predicts them from noisy speech learns sounds that few recordings of a keyword
cannot teach it. Only training needs it: the outputs that predict embeddings are dropped from the model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from streamkws.errors import ConfigError, MissingExtraError

F32 = npt.NDArray[np.float32]

N_EMBEDDING = 96
"""Length of an embedding."""
WINDOW_FRAMES, HOP_FRAMES, N_MELS = 76, 8, 32
"""An embedding covers 76 frames of 10 ms; there is one every 8 frames."""
PEAK = 8000.0
GREATEST_GAIN = 30.0
"""Examples get this peak (of 32768), by this gain at most: the teacher learned from speech at a usual level."""


class SpeechEmbedding:
    """Google's speech embedding as a folder with melspectrogram.onnx and embedding.onnx (streamkws fetch-teacher).

    Raises MissingExtraError without onnxruntime, ConfigError where the folder does not hold the two networks.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError('a teacher needs onnxruntime: pip install "streamkws[teacher]"') from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        sessions = []
        for name in ("melspectrogram.onnx", "embedding.onnx"):
            path = Path(folder) / name
            if not path.is_file():
                raise ConfigError(
                    f"expected data.teacher to be a folder with {name} (streamkws fetch-teacher): {folder}"
                )
            try:
                session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            except Exception as error:  # whatever onnxruntime finds wrong with a file
                raise ConfigError(f"cannot read the teacher {path}: {str(error).splitlines()[0]}") from None
            sessions.append(session)
        self._mel, self._embedding = sessions

    def embed(self, samples: F32) -> F32:
        """(n,) samples at 16 kHz, in units of int16, to (E, 96) float32; embedding e ends with frame ends(E)[e]."""
        peak = float(np.abs(samples).max(initial=0.0))
        gain = min(GREATEST_GAIN, PEAK / max(peak, 1.0))
        mel = self._mel.run(None, {"input": samples[None].astype(np.float32) * np.float32(gain)})[0]
        mel = mel.reshape(1, -1, N_MELS, 1) / 10 + 2  # as the embedding was trained
        # the network gives (1, 96, E, 1) in an order of axes that its last node no longer names
        embeddings = self._embedding.run(None, {"input_1": mel})[0].reshape(N_EMBEDDING, -1)
        transposed: F32 = embeddings.T
        return transposed

    @staticmethod
    def ends(n_embeddings: int) -> npt.NDArray[np.int16]:
        """The frame of 10 ms that each embedding ends with, (E,) int16."""
        return (HOP_FRAMES * np.arange(n_embeddings) + WINDOW_FRAMES - 1).astype(np.int16)
