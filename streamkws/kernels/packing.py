"""How weight codes lie in memory, for the instructions of this CPU.

Weights are packed in blocks of LANES rows, a 32-bit lane of the accumulator for each: the input is broadcast, and no
sum runs across a register. (With an accumulator per row, summed across at the end, 96x96 took twice as long at 4 bits,
and as long at 8.) Within a block, group follows group:

  8 bits: GROUP inputs a group; byte GROUP r + j of a group is the code of row r and input j.
  4 bits: eight inputs a group; byte 4 r + j has input j in its low and input j + 4 in its high half.
"""

from __future__ import annotations

import numpy as np

from streamkws.kernels.cpu import INSTRUCTIONS
from streamkws.kernels.layout import U8

ROW_CODES = 8
"""The codes of an input vector and of a weight row are padded with zeros to a multiple of this."""

ROW_BLOCK = 8
"""Weight rows are padded with zeros to a multiple of this."""

LANES = {"vnni512": 16, "udot": 4, "neon": 4}.get(INSTRUCTIONS, 8)
"""Weight rows of a block: one for each 32-bit lane of a register. The last block may be one of ROW_BLOCK."""

GROUP = 4 if INSTRUCTIONS in ("vnni512", "vnni256", "udot") else 2
"""Inputs of a group of 8-bit weights: four where one instruction adds four products to each lane."""

WEIGHT_OFFSET = 128 if INSTRUCTIONS.startswith("vnni") else 0
"""Subtracted from 8-bit weight codes, since x86 multiplies unsigned by signed bytes."""

NIBBLE_BITS = 4
"""Weights of at most so many bits are packed two to a byte."""


def pack_rows(codes: U8, bits: int) -> U8:
    """Weight codes in the order of the matrix kernels.

    codes: (rows, n) uint8, multiples of ROW_BLOCK and ROW_CODES. Returns (bytes,) uint8.
    """
    n = len(codes) // LANES * LANES
    whole = pack_blocks(codes[:n], LANES, bits, GROUP, WEIGHT_OFFSET)
    return np.concatenate([whole, pack_blocks(codes[n:], ROW_BLOCK, bits, GROUP, WEIGHT_OFFSET)])


def pack_blocks(codes: U8, lanes: int, bits: int, group: int, offset: int) -> U8:
    """pack_rows for rows that fill blocks of so many lanes; group and offset as GROUP and WEIGHT_OFFSET."""
    n_blocks, n_codes = len(codes) // lanes, codes.shape[1]
    if bits > NIBBLE_BITS:
        shifted = codes - np.uint8(offset)  # modulo 256: a signed byte
        groups = shifted.reshape(n_blocks, lanes, n_codes // group, group)
        return groups.transpose(0, 2, 1, 3).ravel()
    halves = codes.reshape(n_blocks, lanes, n_codes // 8, 2, 4)
    packed: U8 = halves[..., 0, :] | (halves[..., 1, :] << np.uint8(4))
    return packed.transpose(0, 2, 1, 3).ravel()


def padded(n: int, multiple: int) -> int:
    """The smallest multiple of multiple that is at least n."""
    return -(-n // multiple) * multiple
