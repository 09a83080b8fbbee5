"""Training: recordings in, model files out. Needs PyTorch, the extra `train`."""

from importlib.util import find_spec

from streamkws.errors import MissingExtraError

if find_spec("torch") is None:  # found, not imported: the process that makes examples does without it
    raise MissingExtraError('training needs PyTorch: pip install "streamkws[train]"')
