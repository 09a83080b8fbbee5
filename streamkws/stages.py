"""Stages: what a model keeps of one stream, from log-mel frames to decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streamkws import kernels
from streamkws.audio import MAX_ABS
from streamkws.frontend import FrontEnd, FrontEndConfig
from streamkws.model import Model, ModelState
from streamkws.smoother import Detection, PosteriorSmoother, event_buffer


@dataclass(eq=False)
class Stages:
    """The three stages of one model in one stream. Models of one stream have a front end in common where theirs are
    equal; whoever feeds the stages resets it and pushes to it once for all of them."""

    model: Model
    front_end: FrontEnd
    network_state: ModelState
    smoother: PosteriorSmoother

    def begin(self) -> None:
        """Begin a stream, as after a long silence; the front end is not reset."""
        self.network_state.hear_silence()
        self.smoother.reset()

    def end(self, frames: npt.NDArray[np.float32]) -> list[Detection]:
        """What the last frames of the stream, (T, F) float32, and its end complete."""
        return self.smoother.push(self.network_state.push(frames)) + self.smoother.flush()

    def new_events(self, n_samples: int) -> npt.NDArray[Any]:
        """Room for the events in so many samples, as an array that is read in a tenth of a recarray's time."""
        n_keywords = len(self.model.keywords)
        events = event_buffer((n_samples // self.model.config.step_samples + 1) * n_keywords)
        return events.view(kernels.EVENT, np.ndarray)

    def arrays(
        self,
        events: npt.NDArray[Any],
        block: npt.NDArray[np.float32],
        history: npt.NDArray[np.int16],
        n_heard: npt.NDArray[np.int64],
    ) -> kernels.StreamArrays:
        """What the compiled path touches. events: of new_events. block, history, n_heard: the stream's."""
        config = self.model.config
        return kernels.StreamArrays(
            front_end=self.front_end.tables,
            front_end_state=self.front_end.state,
            network=self.model.network,
            network_state=self.network_state.state,
            smoother=self.smoother.tables,
            smoother_state=self.smoother.state,
            frame_stride=np.array([config.frame_stride], np.int64),
            frame=np.zeros(config.frontend.n_mels, np.float32),
            posteriors=np.zeros(len(config.keywords), np.float32),
            events=events.view(np.recarray),
            limit=np.array([MAX_ABS], np.float32),
            block=block,
            history=history,
            n_heard=n_heard,
        )


def new_front_ends(models: Sequence[Model]) -> list[FrontEnd]:
    """A front end for each model; models whose settings and filters are equal have one in common."""
    found: dict[tuple[FrontEndConfig, bytes], FrontEnd] = {}
    front_ends = []
    for model in models:
        key = model.config.frontend, model.filters.tobytes()
        if key not in found:
            found[key] = model.new_front_end()
        front_ends.append(found[key])
    return front_ends
