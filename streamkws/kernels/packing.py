"""How weight codes lie in memory, for the instructions of this CPU.

Weights are packed in blocks of LANES rows, a 32-bit lane of the accumulator for each: the input is broadcast, and no
sum runs across a register. (With an accumulator per row, summed across at the end, 96x96 took twice as long at 4 bits,
and as long at 8.) Within a block, group follows group:

  8 bits: GROUP inputs a group; byte GROUP r + j of a group is the code of row r and input j.
  4 bits: eight inputs a group; byte 4 r + j has input j in its low and input j + 4 in its high half.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streamkws.kernels.cpu import INSTRUCTIONS
from streamkws.kernels.layout import U8

ROW_CODES = 8
"""The codes of an input vector and of a weight row are padded with zeros to a multiple of this."""

ROW_BLOCK = 8
"""Weight rows are padded with zeros to a multiple of this."""


class Packing(NamedTuple):
    """How weights lie for one kind of CPU.

    lanes: weight rows of a block, one for each 32-bit lane of a register; the last block may be one of ROW_BLOCK.
    group: inputs of a group of 8-bit weights, four where one instruction adds four products to each lane.
    offset: subtracted from 8-bit weight codes, since x86 multiplies unsigned by signed bytes.
    """

    lanes: int
    group: int
    offset: int


def packing_of(instructions: str) -> Packing:
    """How weights lie for the kernels of these instructions; the bytes are as many for all."""
    return Packing(
        {"vnni512": 16, "udot": 4, "neon": 4}.get(instructions, 8),
        4 if instructions in ("vnni512", "vnni256", "udot") else 2,
        128 if instructions.startswith("vnni") else 0,
    )


PACKING = LANES, GROUP, WEIGHT_OFFSET = packing_of(INSTRUCTIONS)

NIBBLE_BITS = 4
"""Weights of at most so many bits are packed two to a byte."""


def pack_rows(codes: U8, bits: int, packing: Packing = PACKING) -> U8:
    """Weight codes in the order of the matrix kernels; those of this CPU, or of another kind.

    codes: (rows, n) uint8, multiples of ROW_BLOCK and ROW_CODES. Returns (bytes,) uint8.
    """
    lanes, group, offset = packing
    n = len(codes) // lanes * lanes
    whole = pack_blocks(codes[:n], lanes, bits, group, offset)
    return np.concatenate([whole, pack_blocks(codes[n:], ROW_BLOCK, bits, group, offset)])


def pack_blocks(codes: U8, lanes: int, bits: int, group: int, offset: int) -> U8:
    """pack_rows for rows that fill blocks of so many lanes; group and offset as in Packing."""
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
