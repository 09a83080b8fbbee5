"""The network: a ring of quantized frames per layer, equation (4) summed over a layer's taps."""

from __future__ import annotations

import numpy as np

from streamkws.kernels.codes import add_matvec_f32, matvec_u8_u4, matvec_u8_u8, quantize_vector
from streamkws.kernels.compiling import FIRST, compiled
from streamkws.kernels.layout import F32, RELU, SIGMOID, SOFTMAX, Network, NetworkState


@compiled(inline="always")
def push_vector(network: Network, state: NetworkState, index: int) -> None:
    """Quantize state.values into the next slot of layer index's ring (or store it, when the layer is float32)."""
    layer = network.layers[index]
    slot = state.newest[index] + 1
    if slot == layer.n_slots:
        slot = 0
    state.newest[index] = slot
    if layer.weight_bits == 32:
        start = layer.ring + slot * layer.n_inputs
        x = state.floats[start : start + layer.n_inputs]
        for i in range(layer.n_inputs):
            x[i] = state.values[i]
    else:
        start = layer.ring + slot * layer.n_codes
        codes = state.codes[start : start + layer.n_inputs]
        values = state.values[: layer.n_inputs]
        quantize_vector(values, network.levels[index], codes, state.ranges, state.sums, layer.slots + slot)


@compiled(inline="always")
def run_layer(network: Network, state: NetworkState, index: int) -> None:
    """One output vector of layer index from its ring, into state.values. Equation (4), summed over the taps.

    With A[o] = sum over taps of step_x * S(qw*qx)[o] + lo_x * S(qw[o]) and
    B = sum over taps of step_x * S(qx) + I * lo_x, an output is step_w[o] * A[o] + lo_w[o] * B + bias[o].
    """
    layer = network.layers[index]
    newest = state.newest[index]
    n_inputs, n_outputs = layer.n_inputs, layer.n_outputs
    values = state.values[:n_outputs]
    for o in range(n_outputs):
        values[o] = 0
    offset = np.float32(0)
    for tap in range(layer.taps):
        slot = newest - (layer.taps - 1 - tap) * layer.dilation
        if slot < 0:
            slot += layer.n_slots
        w_start = layer.weights + tap * layer.tap_size
        if layer.weight_bits == 32:
            x_start = layer.ring + slot * n_inputs
            add_matvec_f32(network.float_weights, w_start, n_outputs, state.floats, x_start, n_inputs, values)
            continue
        x_start, codes_sum = layer.ring + slot * layer.n_codes, state.sums[layer.slots + slot]
        if layer.weight_bits <= 4:
            matvec_u8_u4(network.weights, w_start, layer.n_rows, state.codes, x_start, layer.n_codes, state.products)
        else:
            matvec_u8_u8(
                network.weights, w_start, layer.n_rows, state.codes, x_start, layer.n_codes, codes_sum, state.products
            )
        lo, step = state.ranges[layer.slots + slot, 0], state.ranges[layer.slots + slot, 1]
        offset += step * np.float32(codes_sum) + np.float32(n_inputs) * lo
        sums_start = layer.weight_sums + tap * n_outputs
        if lo == 0:  # as after most rectified layers
            for o in range(n_outputs):
                values[o] += step * np.float32(state.products[o])
        elif layer.narrow_sums:
            narrow_sums = network.narrow_sums[sums_start : sums_start + n_outputs]
            for o in range(n_outputs):
                values[o] += step * np.float32(state.products[o]) + lo * np.float32(narrow_sums[o])
        else:
            weight_sums = network.weight_sums[sums_start : sums_start + n_outputs]
            for o in range(n_outputs):
                values[o] += step * np.float32(state.products[o]) + lo * weight_sums[o]
    first, end = layer.columns, layer.columns + n_outputs
    lo_w, step_w, bias = network.columns[0][first:end], network.columns[1][first:end], network.columns[2][first:end]
    for o in range(n_outputs):
        values[o] = step_w[o] * values[o] + lo_w[o] * offset + bias[o]
    if layer.residual:
        if layer.weight_bits == 32:
            start = layer.ring + newest * n_inputs
            x = state.floats[start : start + n_outputs]
            for o in range(n_outputs):
                values[o] += x[o]
        else:
            start = layer.ring + newest * layer.n_codes
            codes = state.codes[start : start + n_outputs]
            lo, step = state.ranges[layer.slots + newest, 0], state.ranges[layer.slots + newest, 1]
            for o in range(n_outputs):
                values[o] += lo + step * np.float32(codes[o])
    if layer.activation == RELU:
        for o in range(n_outputs):
            values[o] = max(values[o], np.float32(0))


@compiled(inline="always")
def push_features(network: Network, state: NetworkState, frame: F32) -> None:
    """Normalize a log-mel frame and put it into the first layer's ring. frame: (F,) float32."""
    for f in range(frame.size):
        state.values[f] = (frame[f] - network.features[0, f]) * network.features[1, f]
    push_vector(network, state, FIRST)


@compiled(inline="always")
def exponential(x: float) -> np.float32:
    """exp(x) as float32, to within half a unit in its last place and 1e-11 of that. x: float32.

    The same bits on every machine, where libraries of mathematics differ. With k = rint(x / log(2)),
    exp(x) = 2^k exp(r) and |r| <= log(2) / 2. Beyond the limits of float32 x counts as the limit.
    """
    y = min(max(np.float64(x), -104.0), 88.722)
    k = np.rint(y * 1.4426950408889634)
    r = y - k * 0.6931471805599453
    high = 1 / 5040 + r * (1 / 40320 + r * (1 / 362880 + r * (1 / 3628800)))
    series = 1 + r * (1 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720 + r * high))))))
    power = np.int64((np.int64(k) + 1023) << 52).view(np.float64)
    return np.float32(series * power)


@compiled(inline="always")
def run_network(network: Network, state: NetworkState, posteriors: F32) -> None:
    """One network step: every layer's output vector is quantized once and goes into the next layer's ring.

    posteriors: (K,) float32; the last layer's output vector is quantized too, before its sigmoid or softmax.
    """
    n_layers = len(network.layers)
    for index in range(n_layers):
        if index > 0:
            push_vector(network, state, index)
        run_layer(network, state, index)
    last = network.layers[n_layers - 1]
    values, n = state.values, last.n_outputs
    if last.weight_bits != 32:
        levels = network.levels[n_layers]
        quantize_vector(values[:n], levels, state.output_codes, state.output_range, state.output_sum, FIRST)
        for o in range(n):
            values[o] = state.output_range[0, 0] + state.output_range[0, 1] * np.float32(state.output_codes[o])
    if last.activation == SIGMOID:
        for o in range(n):
            values[o] = np.float32(1) / (np.float32(1) + exponential(-values[o]))
    elif last.activation == SOFTMAX:
        highest = values[0]
        for o in range(1, n):
            highest = max(highest, values[o])
        total = np.float32(0)
        for o in range(n):
            values[o] = exponential(values[o] - highest)
            total += values[o]
        for o in range(n):
            values[o] /= total
    for k in range(posteriors.size):
        posteriors[k] = values[k]


@compiled(inline="always")
def push_frame(network: Network, state: NetworkState, frame_stride: int, frame: F32, posteriors: F32) -> bool:
    """Feed a log-mel frame; every frame_stride-th one runs the network. Returns whether posteriors were written."""
    push_features(network, state, frame)
    state.n_frames[0] += 1
    if state.n_frames[0] < frame_stride:
        return False
    state.n_frames[0] = 0
    run_network(network, state, posteriors)
    return True


@compiled()
def push_frames(network: Network, state: NetworkState, frame_stride: int, frames: F32, posteriors: F32) -> int:
    """Feed log-mel frames, (T, F) float32, and write posteriors, (S, K) float32. Returns how many rows."""
    n = 0
    for t in range(len(frames)):
        if n < len(posteriors):
            n += push_frame(network, state, frame_stride, frames[t], posteriors[n])
        else:
            push_features(network, state, frames[t])
            state.n_frames[0] += 1
    return n
