"""Who provides the kernels on this machine, and which instructions they multiply codes with."""

from __future__ import annotations

from importlib.util import find_spec

from streamkws.native.library import find_library

LIBRARY = find_library()
"""The library of kernels compiled ahead of time that this process runs, or None: numba compiles them."""

IS_MISSING = LIBRARY is None and find_spec("numba") is None
"""Whether there is neither, so that no kernel can run."""


def _numba_instructions() -> str:
    """The fastest way to multiply codes on the CPU that numba compiles for, which need not be the host."""
    if IS_MISSING:
        return "portable"
    from numba.core import config
    from numba.core.codegen import get_host_cpu_features

    if config.DISABLE_JIT:
        return "portable"
    features = config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features() if config.CPU_NAME in (None, "host") else ""
    names = features.split(",")
    if {"+avx512vnni", "+avx512vl", "+avx512bw"} <= set(names):
        return "vnni512"
    if "+avxvnni" in names:
        return "vnni256"
    if "+avx2" in names:
        return "avx2"
    return "udot" if "+dotprod" in names else "neon" if "+neon" in names else "portable"


def _is_compiled() -> bool:
    """Whether kernels are machine code, and not plain Python."""
    if LIBRARY is not None or IS_MISSING:
        return True
    from numba.core import config

    return not config.DISABLE_JIT


INSTRUCTIONS = _numba_instructions() if LIBRARY is None else LIBRARY.instructions
"""What the integer products are made of: vnni512, vnni256, avx2 (x86), udot, neon (ARM) or portable. All are exact."""

COMPILED = _is_compiled()
"""Whether kernels are machine code, and so find their arrays by an address; otherwise they run as plain Python."""
