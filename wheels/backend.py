"""The build backend: hatchling's. A wheel, and nothing else, also needs what compiles and links its library of kernels.

pip wheel . --no-deps --config-settings target=aarch64-linux     for another system: streamkws/native/targets.py
pip install . --config-settings target=none                      without a library: numba compiles at each start
"""

import os
import shutil

import hatchling.build
from hatchling.build import (  # noqa: F401, what pip calls
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
)

TARGET = "STREAMKWS_TARGET"
"""The environment variable by which hook.py learns the target."""
COMPILER, LINKER = "numba>=0.60", "ziglang>=0.13"


def _target(config_settings):
    return (config_settings or {}).get("target", os.environ.get(TARGET, ""))


def get_requires_for_build_wheel(config_settings=None):
    """What pip installs to build a wheel with."""
    required = hatchling.build.get_requires_for_build_wheel(config_settings)
    target = _target(config_settings)
    if target == "none":
        return required
    return [*required, COMPILER, *([LINKER] if target or not shutil.which("cc") else [])]


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Build a wheel for the target of the settings."""
    os.environ[TARGET] = _target(config_settings)
    return hatchling.build.build_wheel(wheel_directory, config_settings, metadata_directory)
