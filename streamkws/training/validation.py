"""The miss rate on the validation part while a network trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from streamkws.corpus import SEGMENTS, read_segments
from streamkws.frontend import FrontEnd
from streamkws.model import ModelConfig
from streamkws.training.network import KeywordNetwork
from streamkws.training.recipe import Recipe
from streamkws.training.recordings import read_wakewords, require_speech


class Validation:
    """A part of the corpus as features, and the miss rate on it at few false accepts.

    A quick measure by peaks of smoothed posteriors, to follow a training by. Thresholds and figures come from
    streamkws.evaluation, by the runtime's own decision rule.
    """

    def __init__(self, recipe: Recipe, part: Path, config: ModelConfig) -> None:
        frontend = FrontEnd(config.frontend)
        self.smoothing = config.smoother.smoothing_steps
        self.window = max(1, 2 * config.frontend.sample_rate // config.step_samples)  # steps in 2 s
        self.keywords = config.keywords

        def features(samples: npt.NDArray[np.int16]) -> torch.Tensor:
            frontend.reset()
            return torch.from_numpy(frontend.push(samples))

        folder = part / recipe.data.wakewords
        clips, _ = read_wakewords(folder, config.keywords, recipe.data.exclude)
        require_speech(clips, config.keywords, [folder])
        tail = np.zeros(config.frontend.sample_rate // 2, np.int16)
        self.clips = [(clip.keyword, features(np.concatenate([clip.samples, tail]))) for clip in clips]
        places = sorted(part.glob(f"*/{SEGMENTS}"))
        files = [file for place in places for file in read_segments(place.parent).files]
        self.negatives = [features(file) for file in files]
        self.hours = sum(file.size for file in files) / config.frontend.sample_rate / 3600

    def _posteriors(self, network: KeywordNetwork, features: torch.Tensor) -> torch.Tensor:
        """(T, F) to (K, S) smoothed posteriors."""
        logits = network(features[None])[0, :, : len(self.keywords)]
        return torch.nn.functional.avg_pool1d(torch.sigmoid(logits).T, self.smoothing, stride=1)

    def measure(self, network: KeywordNetwork) -> dict[str, float]:
        """Miss rate of each keyword without a false accept, and the means at 0, 2 and 8 false accepts."""
        with torch.no_grad():
            peaks = [(keyword, float(self._posteriors(network, one)[keyword].amax())) for keyword, one in self.clips]
            worst = []
            for one in self.negatives:
                scores = self._posteriors(network, one)
                scores = torch.nn.functional.pad(scores, (0, -scores.shape[1] % self.window))
                worst.append(scores.reshape(scores.shape[0], -1, self.window).amax(2))
        highest = torch.cat(worst, 1).sort(1, descending=True).values if worst else torch.zeros(len(self.keywords), 1)
        figures, means = {}, {}
        for n_false in (0, 2, 8):
            misses = []
            for index, name in enumerate(self.keywords):
                threshold = float(highest[index, min(n_false, highest.shape[1] - 1)])
                missed = float(np.mean([peak <= threshold for keyword, peak in peaks if keyword == index]))
                misses.append(missed)
                if n_false == 0:
                    figures[f"miss {name}"] = missed
            means[f"miss at {n_false} FA"] = float(np.mean(misses))
        return {**means, **figures}
