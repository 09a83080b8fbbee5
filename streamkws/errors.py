"""The exceptions of streamkws.

    StreamKwsError
    ├── AudioError         (ValueError)   audio that cannot be used: format, rate, damaged file, device
    ├── ConfigError        (ValueError)   a setting out of its range, an unknown keyword or name
    ├── ModelFileError     (ValueError)   a model file that is damaged, foreign, newer or missing
    ├── ClusterError                      a cluster of Dask's that cannot be reached, or was lost
    └── MissingExtraError  (ImportError)  an optional part is not installed; the message names the command to install it

A message says what was expected and what was found.
"""


class StreamKwsError(Exception):
    """Base class of all errors that streamkws raises on purpose."""


class AudioError(StreamKwsError, ValueError):
    """Audio that cannot be used."""


class ConfigError(StreamKwsError, ValueError):
    """A setting, keyword or name that is not valid."""


class ModelFileError(StreamKwsError, ValueError):
    """A model file that cannot be used."""


class ClusterError(StreamKwsError):
    """A cluster that cannot be used."""


class MissingExtraError(StreamKwsError, ImportError):
    """An optional dependency that is not installed."""
