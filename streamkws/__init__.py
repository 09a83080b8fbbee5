"""Streaming keyword spotting with low-bit integer kernels: audio in, detections out.

Shape letters in the docstrings: N streams, T frames, S network steps, F mel bands, I inputs, O outputs, K keywords.
"""

from streamkws.audio import Resampler
from streamkws.detector import BatchDetector, Detector, detect, posteriors
from streamkws.errors import AudioError, ClusterError, ConfigError, MissingExtraError, ModelFileError, StreamKwsError
from streamkws.frontend import FrontEnd, FrontEndConfig
from streamkws.layers import LayerConfig
from streamkws.listener import Listener, listen
from streamkws.model import FloatWeights, Model, ModelConfig, ModelState
from streamkws.model_file import load_model, save_model, shipped_models
from streamkws.scanning import scan
from streamkws.scanning.progress import Summary
from streamkws.smoother import Detection, PosteriorSmoother, SmootherConfig
from streamkws.sources import FileSource, Microphone, RawSource

__version__ = "0.1.0"

__all__ = [
    "AudioError",
    "BatchDetector",
    "ClusterError",
    "ConfigError",
    "Detection",
    "Detector",
    "FileSource",
    "FloatWeights",
    "FrontEnd",
    "FrontEndConfig",
    "LayerConfig",
    "Listener",
    "Microphone",
    "MissingExtraError",
    "Model",
    "ModelConfig",
    "ModelFileError",
    "ModelState",
    "PosteriorSmoother",
    "RawSource",
    "Resampler",
    "SmootherConfig",
    "StreamKwsError",
    "Summary",
    "detect",
    "listen",
    "load_model",
    "posteriors",
    "save_model",
    "scan",
    "shipped_models",
]
