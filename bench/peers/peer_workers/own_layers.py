"""Runs dense layers in streamkws' kernels for bench/speed/kernels.py, and measures what this CPU can do at most."""

import sys
import time
from typing import NamedTuple

import layers
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic
from protocol import pin, serve

from streamkws import kernels
from streamkws.frontend import FrontEndConfig
from streamkws.kernels.layout import NETWORK, NETWORK_STATE, tuple_kind
from streamkws.kernels.network import push_vector, run_layer
from streamkws.kernels.numba_types import load_at
from streamkws.layers import LayerConfig
from streamkws.model import FloatWeights, Model, ModelConfig

compiled = numba.njit(nogil=True, _nrt=False)


class Layers(NamedTuple):
    """A network without front end and decision, and its state."""

    network: kernels.Network
    state: kernels.NetworkState


LAYERS = tuple_kind(Layers, network=NETWORK, state=NETWORK_STATE)
_load_layers = load_at(LAYERS)


@compiled
def dense(address, x, y):
    """Float input to float output of all layers. x: (I,) float32. y: (O,) float32."""
    loaded = _load_layers(address)
    network, state = loaded.network, loaded.state
    for i in range(x.size):
        state.values[i] = x[i]
    for index in range(len(network.layers)):
        push_vector(network, state, index)
        run_layer(network, state, index)
    for o in range(y.size):
        y[o] = state.values[o]


@compiled
def dense_often(address, x, y, n):
    """Call dense n times from compiled code."""
    for _ in range(n):
        dense(address, x, y)


@compiled
def run_often(address, n):
    """Compute all layers n times from inputs that are quantized already."""
    loaded = _load_layers(address)
    network, state = loaded.network, loaded.state
    for _ in range(n):
        for index in range(len(network.layers)):
            run_layer(network, state, index)


class Network:
    """A network of the given widths, float32 for 32."""

    def __init__(self, weights, weight_bits):
        n = len(weights)
        activations = ["relu"] * (n - 1) + ["sigmoid"]  # which run_layer leaves to run_network
        config = ModelConfig(
            keywords=tuple(str(o) for o in range(len(weights[-1]))),
            layers=tuple(
                LayerConfig(w.shape[1], len(w), activation=name) for w, name in zip(weights, activations, strict=True)
            ),
            frontend=FrontEndConfig(n_mels=weights[0].shape[1]),
        )
        mean, scale = np.zeros(weights[0].shape[1], np.float32), np.ones(weights[0].shape[1], np.float32)
        biases = tuple(np.zeros(len(w), np.float32) for w in weights)
        model = Model.from_float(config, FloatWeights(mean, scale, tuple(w[:, None] for w in weights), biases))
        self.model = model if weight_bits == 32 else model.quantize(weight_bits, 8)
        self.native = kernels.ByAddress(Layers(self.model.network, self.model.new_state().state), LAYERS)
        self.address = self.native.address
        self.x, output = np.zeros(weights[0].shape[1], np.float32), np.zeros(len(weights[-1]), np.float32)
        self.output = output
        self.y = output.copy
        address, x = self.address, self.x
        self.call = lambda: dense(address, x, output)


layers.ENGINES = {
    "w8a8": lambda weights: Network(weights, 8),
    "w4a8": lambda weights: Network(weights, 4),
    "f32": lambda weights: Network(weights, 32),
}

# ---- the floor -----------------------------------------------------------------------------------------------------

FEATURES = get_host_cpu_features().split(",")
CHAINS = 14
"""Independent sums, more than the latency of a multiply-add times how many start in a cycle."""
_I8, _I16, _I32 = (ir.IntType(bits) for bits in (8, 16, 32))


def _instruction():
    """What multiplies and adds 8-bit integers here: its name, and the bytes it takes at once."""
    if "+avx512vnni" in FEATURES:
        return "vpdpbusd", 64
    if "+avxvnni" in FEATURES:
        return "vpdpbusd", 32
    return ("vpmaddubsw, vpmaddwd, vpaddd", 32) if "+avx2" in FEATURES else ("", 0)


INSTRUCTION, WIDTH = _instruction()


@intrinsic
def _multiply_adds(typingctx, n):
    """n turns of CHAINS multiply-adds of WIDTH bytes each on registers; returns something of the sums."""

    def codegen(context, builder, signature, args):
        bytes_, sums_ = ir.VectorType(_I8, WIDTH), ir.VectorType(_I32, WIDTH // 4)

        def call(name, result, *operands):
            function = ir.FunctionType(result, [operand.type for operand in operands])
            return builder.call(cgutils.get_or_insert_function(builder.module, function, name), operands)

        sums = [cgutils.alloca_once(builder, sums_) for _ in range(CHAINS)]
        for number, total in enumerate(sums):
            builder.store(ir.Constant(sums_, [number] * (WIDTH // 4)), total)
        varying = cgutils.alloca_once(builder, bytes_)
        builder.store(ir.Constant(bytes_, [1] * WIDTH), varying)
        w = ir.Constant(bytes_, [3] * WIDTH)
        with cgutils.for_range(builder, args[0]):
            x = builder.add(builder.load(varying), ir.Constant(bytes_, [1] * WIDTH))
            builder.store(x, varying)
            for number, total in enumerate(sums):
                before = builder.load(total)
                if INSTRUCTION == "vpdpbusd":
                    operands = [builder.bitcast(vector, sums_) for vector in (x, w)]
                    after = call(f"llvm.x86.avx512.vpdpbusd.{8 * WIDTH}", sums_, before, *operands)
                else:
                    factor = ir.Constant(bytes_, [number + 1] * WIDTH)
                    pairs = call("llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(_I16, WIDTH // 2), x, factor)
                    ones = ir.Constant(pairs.type, [1] * (WIDTH // 2))
                    after = builder.add(before, call("llvm.x86.avx2.pmadd.wd", sums_, pairs, ones))
                builder.store(after, total)
        whole = builder.load(sums[0])
        for total in sums[1:]:
            whole = builder.xor(whole, builder.load(total))
        return builder.sext(builder.extract_element(whole, _I32(0)), ir.IntType(64))

    return numba.int64(numba.int64), codegen


@intrinsic
def _read(typingctx, values, n, times):
    """Load n numbers, a multiple of 64, some times; returns something of them all."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        word = ir.IntType(64)
        vector = ir.VectorType(word, WIDTH // 8 or 2)
        sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0] * vector.count)) for _ in range(4)]
        n_turns = builder.udiv(args[1], word(64))
        with cgutils.for_range(builder, args[2]), cgutils.for_range(builder, n_turns, intp=word) as turn:
            start = builder.mul(turn.index, word(64))
            for number, place in enumerate(range(0, 64, vector.count)):
                pointer = builder.gep(data, [builder.add(start, word(place))])
                loaded = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=8)
                builder.store(builder.xor(builder.load(sums[number % 4]), loaded), sums[number % 4])
        total = word(0)
        for number in range(4):
            for lane in range(vector.count):  # of every lane: what is not used would not be loaded
                total = builder.xor(total, builder.extract_element(builder.load(sums[number]), _I32(lane)))
        return total

    return numba.uint64(values, numba.int64, numba.int64), codegen


@compiled
def multiply_adds(n):
    """See _multiply_adds."""
    return _multiply_adds(n)


@compiled
def chain(n):
    """n turns of two instructions that wait for each other, a cycle each."""
    x = np.uint64(0)
    for _ in range(n):
        x = (x ^ np.uint64(0x9E3779B97F4A7C15)) + np.uint64(0x632BE59BD9B4E019)
    return x


@compiled
def read(values, times):
    """Read all of values some times. values: (m,) uint64, m a multiple of 64."""
    return _read(values, values.size, times)


def fastest_s(work, repeats=25):
    """Seconds of the fastest of some runs of work()."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        work()
        taken.append(time.perf_counter_ns() - start)
    return 1e-9 * min(taken)


class Worker(layers.Worker):
    """The commands that only streamkws has."""

    def compiled(self, engine, network, n_calls, quantizing):
        """Microseconds per call from compiled code. quantizing: whether each call quantizes its input."""
        made = self.engines[engine, network]
        start = time.perf_counter_ns()
        if quantizing:
            dense_often(made.address, made.x, made.output, n_calls)
        else:
            run_often(made.address, n_calls)
        return (time.perf_counter_ns() - start) / n_calls / 1000

    def machine(self):
        """Cycles and 8-bit multiply-adds per second, at most, and by which instruction."""
        n = 100_000
        chain(n)
        cycles = 2 * n / fastest_s(lambda: chain(n))
        adds = None
        if INSTRUCTION:
            multiply_adds(1)
            adds = n * CHAINS * WIDTH / fastest_s(lambda: multiply_adds(n))
        return {"cycles_per_s": cycles, "multiply_adds_per_s": adds, "instruction": INSTRUCTION}

    def read_us(self, n_bytes):
        """Microseconds to read as many bytes, that were read before."""
        n_words = 64 * -(-n_bytes // 512)
        values = np.zeros(n_words + 8, np.uint64)
        first = -values.ctypes.data // 8 % 8  # on a cache line's first byte, or most loads touch two
        values = values[first : first + n_words]
        n = max(1, 2_000_000 // n_bytes)
        read(values, n)
        return 1e6 * fastest_s(lambda: read(values, n)) / n * n_bytes / values.nbytes


if __name__ == "__main__":
    pin(int(sys.argv[1]) if len(sys.argv) > 1 else None)
    worker = Worker()
    commands = ("open", "output", "time", "compiled", "machine", "read_us")
    serve({command: getattr(worker, command) for command in commands})
