"""Which instructions the CPU has for multiplying codes."""

from __future__ import annotations

from numba.core import config
from numba.core.codegen import get_host_cpu_features


def _instructions() -> str:
    """The fastest way to multiply codes on the CPU that numba compiles for, which need not be the host."""
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


INSTRUCTIONS = _instructions()
"""What the integer products are made of: vnni512, vnni256, avx2 (x86), udot, neon (ARM) or portable. All are exact."""
