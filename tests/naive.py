"""Slow, obvious twins of the kernels: the oracle of the tests."""

import numpy as np

from streamkws.quantization import Quantized, matrix_product, quantize


def log_mel(samples, config, filters):
    """All complete frames of samples, (T, F): pre-emphasis over the whole signal, np.fft.rfft, dense filters."""
    x = np.asarray(samples, np.float64)
    emphasized = np.append(x[:1], x[1:] - config.preemphasis * x[:-1])
    n = config.window_samples
    window = np.ones(n) if config.window == "rectangular" else np.hanning(n + 1)[:-1]
    frames = []
    for start in range(0, len(x) - n + 1, config.hop_samples):
        spectrum = np.fft.rfft(emphasized[start : start + n] * window, config.fft_samples)
        power = np.abs(spectrum) ** 2 / config.fft_samples
        frames.append(np.log(np.maximum(filters @ power, config.energy_floor)))
    return np.array(frames).reshape(-1, config.n_mels)


def network(model, frames):
    """Posteriors of log-mel frames, (S, K): every layer over the whole stream, one vector at a time."""
    x = [(frame - model.features[0]) * model.features[1] for frame in np.asarray(frames, np.float32)]
    stride = model.config.frame_stride
    for index, layer in enumerate(model.layers):
        steps = range(stride - 1, len(x), stride) if index == 0 else range(len(x))
        x = run_layer(layer, x, steps)
    if not model.layers[-1].config.is_float:
        x = [quantize(y, model.layers[-1].config.activation_bits).dequantize() for y in x]
    y = np.array(x, np.float64).reshape(-1, model.layers[-1].config.n_outputs)
    if model.layers[-1].config.activation == "sigmoid":
        return 1 / (1 + np.exp(-y))
    exp = np.exp(y - y.max(axis=1, keepdims=True))
    return (exp / exp.sum(axis=1, keepdims=True))[:, : len(model.keywords)]


def run_layer(layer, x, steps):
    """The layer's output vectors before sigmoid or softmax, at the given steps; x[t] for t < 0 is zero."""
    c = layer.config
    inputs = x if c.is_float else [quantize(v, c.activation_bits) for v in x]
    outputs = []
    for t in steps:
        y = layer.bias.astype(np.float64)
        for tap in range(c.taps):
            s = t - (c.taps - 1 - tap) * c.dilation
            if s < 0:
                continue
            if c.is_float:
                y = y + layer.weights[:, tap] @ inputs[s]
            else:
                w = layer.weights
                y = y + matrix_product(Quantized(w.codes[:, tap], w.lo, w.step, w.bits), inputs[s])
        if c.residual:
            y = y + (inputs[t] if c.is_float else inputs[t].dequantize())
        if c.activation == "relu":
            y = np.maximum(y, 0)
        outputs.append(y.astype(np.float32))
    return outputs


def detections(posteriors, config, thresholds, near=None):
    """(keyword, peak step, step of the decision, score) by the decision rule, written as one loop per keyword.

    near: the near misses instead, from here on.
    """
    found, nearly = [], []
    n_steps, n_keywords = posteriors.shape
    for k in range(n_keywords):
        phase, peak, peak_step, ready, rise = "armed", 0.0, 0, 0, []
        for step in range(n_steps):
            first = max(0, step + 1 - config.smoothing_steps)
            total = np.float32(0)
            for p in posteriors[first : step + 1, k]:
                total += p
            score = total / np.float32(step + 1 - first)
            if phase == "waiting" and step >= ready and score < thresholds[k]:
                phase = "armed"
            if phase == "armed" and score >= thresholds[k]:
                phase, peak, peak_step = "rising", score, step
            elif phase == "rising" and score > peak:
                peak, peak_step = score, step
            if phase == "rising" and step - peak_step >= config.patience_steps:
                found.append((k, peak_step, step, float(peak)))
                phase, ready = "waiting", peak_step + config.refractory_steps
            if near is not None and score >= near:
                rise.append((score, -step))
            elif rise:
                top, place = max(rise)
                if top < thresholds[k] and phase == "armed":
                    nearly.append((k, -place, step, float(top)))
                rise = []
        if rise and max(rise)[0] < thresholds[k] and phase == "armed":
            nearly.append((k, -max(rise)[1], n_steps - 1, float(max(rise)[0])))
        if phase == "rising":
            found.append((k, peak_step, n_steps - 1, float(peak)))
    return sorted(found if near is None else nearly)
