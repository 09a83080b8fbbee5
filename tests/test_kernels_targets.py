"""The integer products for other CPUs than this one: their assembly, and ARM's run by an emulator, if there is one."""

import shutil
import struct
import subprocess

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir

from streamkws.kernels import pack_blocks
from streamkws.kernels.products import products_of, write_product

TARGETS = {
    "vnni512": ("x86_64-linux-gnu", "cascadelake", "+avx512vnni"),
    "vnni256": ("x86_64-linux-gnu", "alderlake", "+avxvnni"),
    "avx2": ("x86_64-linux-gnu", "haswell", "+avx2"),
    "udot": ("aarch64-linux-gnu", "cortex-a76", "+dotprod"),  # Raspberry Pi 5
    "neon": ("aarch64-linux-gnu", "cortex-a72", "+neon"),  # Raspberry Pi 4
}
WANTED = {
    "vnni512": "vpdpbusd",
    "vnni256": "vpdpbusd",
    "avx2": {8: "vpmaddwd", 4: "vpmaddubsw"},
    "udot": "udot",
    "neon": "uadalp",
}
EMULATED = ("udot", "neon")
N_BLOCKS = 2
C_MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
void product(uint8_t *, int64_t, uint8_t *, int64_t, int32_t, int32_t *);
int main(void) {
    int64_t sizes[4]; /* bytes of weights, bytes of a block, codes, rows */
    if (fread(sizes, 8, 4, stdin) != 4) return 1;
    uint8_t *weights = malloc(sizes[0]), *codes = malloc(sizes[2]);
    int32_t *out = malloc(4 * sizes[3]);
    if (fread(weights, 1, sizes[0], stdin) != sizes[0] || fread(codes, 1, sizes[2], stdin) != sizes[2]) return 1;
    product(weights, sizes[1], codes, sizes[2], 0, out);
    for (int64_t i = 0; i < sizes[3]; i++) printf("%d ", out[i]);
    return 0;
}
"""


def compiled(instructions, bits, n_blocks=N_BLOCKS):
    """(target machine, module) of a function `product` for a CPU with these instructions."""
    triple, cpu, features = TARGETS[instructions]
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=3)
    module = ir.Module()
    module.triple, module.data_layout = triple, str(machine.target_data)
    byte, i64, i32 = ir.IntType(8).as_pointer(), ir.IntType(64), ir.IntType(32)
    function = ir.Function(
        module, ir.FunctionType(ir.VoidType(), [byte, i64, byte, i64, i32, i32.as_pointer()]), "product"
    )
    builder = ir.IRBuilder(function.append_basic_block())
    write_product(builder, products_of(instructions, bits), n_blocks, *function.args)
    builder.ret_void()
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(parsed, passes)
    return machine, parsed


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("instructions", list(TARGETS))
def test_the_assembly_has_the_instruction_that_the_kernel_is_made_for(instructions, bits):
    machine, module = compiled(instructions, bits)
    assembly = machine.emit_assembly(module)
    wanted = WANTED[instructions]
    assert (wanted if isinstance(wanted, str) else wanted[bits]) in assembly
    if instructions == "vnni512":
        assert "%zmm" in assembly


@pytest.mark.skipif(
    not (shutil.which("qemu-aarch64") and shutil.which("aarch64-linux-gnu-gcc")),
    reason="needs qemu-aarch64 and aarch64-linux-gnu-gcc (Debian: qemu-user, gcc-aarch64-linux-gnu)",
)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("instructions", EMULATED)
def test_products_on_an_emulated_arm_cpu_are_exact(instructions, bits, tmp_path):
    machine, module = compiled(instructions, bits)
    (tmp_path / "product.o").write_bytes(machine.emit_object(module))
    (tmp_path / "main.c").write_text(C_MAIN)
    command = ["aarch64-linux-gnu-gcc", "-static", "-O1", "-o", "main", "main.c", "product.o"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    lanes = products_of(instructions, bits).lanes
    rng = np.random.default_rng(bits)
    for n_codes in (8, 40, 104):
        n_rows = lanes * N_BLOCKS
        codes = rng.integers(0, 2**bits, (n_rows, n_codes)).astype(np.uint8)
        codes[0], x = 2**bits - 1, rng.integers(0, 256, n_codes).astype(np.uint8)
        x[: n_codes // 2] = 255
        group = 4 if instructions == "udot" else 2
        weights = pack_blocks(codes, lanes, bits, group, offset=0).tobytes()
        data = struct.pack("<4q", len(weights), len(weights) // N_BLOCKS, n_codes, n_rows) + weights + x.tobytes()
        cpu = TARGETS[instructions][1]
        result = subprocess.run(["qemu-aarch64", "-cpu", cpu, "./main"], cwd=tmp_path, input=data, capture_output=True)
        assert result.returncode == 0, result.stderr
        expected = codes.astype(np.int64) @ x.astype(np.int64)
        assert [int(number) for number in result.stdout.split()] == expected.tolist()
