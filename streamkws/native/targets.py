"""What libraries are made for: systems, and the kinds of CPU of each, with the code that asks a CPU what it has."""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

INT32, INT64 = ir.IntType(32), ir.IntType(64)


@dataclass(frozen=True)
class CpuKind:
    """A kind of CPU: its name for LLVM, and its features; the first ones are those that cpu.INSTRUCTIONS comes from."""

    cpu: str
    features: str


X86_64 = {
    "portable": CpuKind("x86-64", ""),
    "avx2": CpuKind("x86-64-v3", "+avx2"),
    "vnni256": CpuKind("x86-64-v3", "+avxvnni,+avx2"),
    "vnni512": CpuKind("x86-64-v4", "+avx512vnni,+avx512vl,+avx512bw"),
}
AARCH64 = {"neon": CpuKind("generic", "+neon"), "udot": CpuKind("generic", "+dotprod,+neon")}


@dataclass(frozen=True)
class Target:
    """A system that a library is made for.

    system: as platform names it. triple, zig: as LLVM and as zig name it. file: the library's name. wheel: the platform
    of a wheel. kinds: by INSTRUCTIONS, the baseline first. link_options: what the linker needs to be told.
    """

    system: str
    triple: str
    zig: str
    file: str
    wheel: str
    kinds: dict[str, CpuKind]
    link_options: tuple[str, ...] = ()


# any Linux: such a library needs nothing of a C library but memset and memmove (getauxval on ARM), of any version
_MANY = "manylinux_2_17_{0}.manylinux2014_{0}.musllinux_1_1_{0}"
# memset and memmove are found in the process, whichever C library it has
_LINUX = ("-nostdlib", "-Wl,-z,relro", "-Wl,-z,now")
TARGETS = {
    "x86_64-linux": Target(
        "Linux x86_64",
        "x86_64-linux-gnu",
        "x86_64-linux-gnu",
        "libstreamkws.so",
        _MANY.format("x86_64"),
        X86_64,
        _LINUX,
    ),
    "aarch64-linux": Target(
        "Linux aarch64",
        "aarch64-linux-gnu",
        "aarch64-linux-gnu",
        "libstreamkws.so",
        _MANY.format("aarch64"),
        AARCH64,
        _LINUX,
    ),
    "x86_64-macos": Target(
        "Darwin x86_64", "x86_64-apple-macosx11.0", "x86_64-macos", "libstreamkws.dylib", "macosx_11_0_x86_64", X86_64
    ),
    "aarch64-macos": Target(
        "Darwin arm64", "arm64-apple-macosx11.0", "aarch64-macos", "libstreamkws.dylib", "macosx_11_0_arm64", AARCH64
    ),
    "x86_64-windows": Target(
        "Windows AMD64", "x86_64-pc-windows-gnu", "x86_64-windows-gnu", "streamkws.dll", "win_amd64", X86_64
    ),
}

EAX, EBX, ECX = range(3)
SAVES_AVX, SAVES_AVX512 = 0x6, 0xE6
"""Bits of XCR0."""
AT_HWCAP, HWCAP_ASIMDDP = 16, 1 << 20


def define_cpu_kinds(module: ir.Module, target: Target) -> None:
    """Define streamkws_cpu_kinds() -> int64: which of the target's kinds this CPU is, a bit for each by its place."""
    function = ir.Function(module, ir.FunctionType(INT64, []), "streamkws_cpu_kinds")
    builder = ir.IRBuilder(function.append_basic_block())
    if target.kinds is X86_64:
        kinds = _ask_x86(builder)
    elif target.system.startswith("Darwin"):
        kinds = INT64(0b11)  # every Mac with ARM has udot
    else:
        getauxval = ir.Function(module, ir.FunctionType(INT64, [INT64]), "getauxval")
        has_udot = builder.and_(builder.call(getauxval, [INT64(AT_HWCAP)]), INT64(HWCAP_ASIMDDP))
        kinds = builder.select(builder.icmp_unsigned("!=", has_udot, INT64(0)), INT64(0b11), INT64(0b01))
    builder.ret(kinds)


def define_rounding(module: ir.Module) -> None:
    """Define rint and rintf for the library alone: x86-64's baseline rounds by calling them, from a library that not
    every process has. Adding what has no fraction bits left, and taking it away again, rounds half to even."""
    for name, kind, bits, fraction_bits in (("rint", ir.DoubleType(), 64, 52), ("rintf", ir.FloatType(), 32, 23)):
        function = ir.Function(module, ir.FunctionType(kind, [kind]), name)
        builder = ir.IRBuilder(function.append_basic_block())
        (x,) = function.args
        word, sign = ir.IntType(bits), 1 << (bits - 1)
        code = builder.bitcast(x, word)
        magnitude = builder.bitcast(builder.and_(code, word(sign - 1)), kind)
        large = ir.Constant(kind, float(1 << fraction_bits))
        rounded = builder.fsub(builder.fadd(magnitude, large), large)
        signed = builder.or_(builder.bitcast(rounded, word), builder.and_(code, word(sign)))
        is_small = builder.fcmp_ordered("<", magnitude, large)
        builder.ret(builder.select(is_small, builder.bitcast(signed, kind), x))


def _ask_x86(builder: ir.IRBuilder) -> ir.Value:
    """What X86_64 is a bit each of, from cpuid; AVX and AVX-512 only where the system saves their registers."""
    four, two = ir.LiteralStructType([INT32] * 4), ir.LiteralStructType([INT32] * 2)
    cpuid_type, xgetbv_type = ir.FunctionType(four, [INT32, INT32]), ir.FunctionType(two, [INT32])

    def cpuid(leaf: int, part: int = 0) -> ir.Value:
        question = [INT32(leaf), INT32(part)]
        return builder.asm(cpuid_type, "cpuid", "={ax},={bx},={cx},={dx},{ax},{cx}", question, True)

    def has_all(word: ir.Value, mask: int) -> ir.Value:
        return builder.icmp_unsigned("==", builder.and_(word, INT32(mask)), INT32(mask))

    def has(leaf: int, register: int, *bits: int, part: int = 0) -> ir.Value:
        return has_all(builder.extract_value(cpuid(leaf, part), register), sum(1 << bit for bit in bits))

    kinds = builder.alloca(INT64)
    builder.store(INT64(1), kinds)
    knows_leaf_7 = builder.icmp_unsigned(">=", builder.extract_value(cpuid(0), EAX), INT32(7))
    # FMA, MOVBE, POPCNT, OSXSAVE, AVX, F16C
    with builder.if_then(builder.and_(knows_leaf_7, has(1, ECX, 12, 22, 23, 27, 28, 29))):
        saved = builder.extract_value(builder.asm(xgetbv_type, "xgetbv", "={ax},={dx},{cx}", [INT32(0)], True), 0)
        avx2 = builder.and_(has(7, EBX, 3, 5, 8), has(0x80000001, ECX, 5))  # BMI1, AVX2, BMI2; LZCNT
        avx2 = builder.and_(avx2, has_all(saved, SAVES_AVX))
        vnni256 = builder.and_(avx2, has(7, EAX, 4, part=1))  # AVX-VNNI
        vnni512 = builder.and_(has(7, EBX, 16, 17, 28, 30, 31), has(7, ECX, 11))  # F, DQ, CD, BW, VL; VNNI
        vnni512 = builder.and_(avx2, builder.and_(vnni512, has_all(saved, SAVES_AVX512)))
        for bit, kind in enumerate((avx2, vnni256, vnni512), 1):
            flag = builder.shl(builder.zext(kind, INT64), INT64(bit))
            builder.store(builder.or_(builder.load(kinds), flag), kinds)
    return builder.load(kinds)
