"""ModelSet: the models that hear one stream together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from streamkws.errors import ConfigError
from streamkws.model import Model
from streamkws.model_file import load_model
from streamkws.smoother import check_numbers, valid_keywords

OneModel = Model | str | os.PathLike[str]
Models = OneModel | Iterable[OneModel]
"""A Model, the name of a shipped model or the path of a model file; or several of these."""


class Settings(NamedTuple):
    """What one model of a set listens for.

    thresholds: by keyword, those that are not the model's own. keywords: the wanted ones; None is all.
    """

    thresholds: dict[str, float]
    keywords: tuple[str, ...] | None


class ModelSet:
    """The models that hear one stream together, each keyword one model's; constant.

    models: as Models says.
    Raises ConfigError for no model, for a keyword that two models have and for different sample rates, and what
    load_model raises.
    """

    def __init__(self, models: Models) -> None:
        given = [models] if isinstance(models, (Model, str, os.PathLike)) else models
        self.models = tuple(one if isinstance(one, Model) else load_model(one) for one in given)
        if not self.models:
            raise ConfigError("expected at least one model, got none")
        self.keywords = tuple(keyword for model in self.models for keyword in model.keywords)
        self.sample_rate = self.models[0].config.frontend.sample_rate
        self._check()

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models)

    def _check(self) -> None:
        """Refuse models that cannot hear one stream."""
        seen: dict[str, int] = {}
        for index, model in enumerate(self.models):
            rate = model.config.frontend.sample_rate
            if rate != self.sample_rate:
                raise ConfigError(
                    f"expected models of one sample rate, got {self.sample_rate} Hz in {self._called(0)} and {rate} Hz "
                    f"in {self._called(index)}"
                )
            for keyword in model.keywords:
                if keyword in seen:
                    raise ConfigError(
                        f"expected each keyword in one model, got {keyword!r} in {self._called(seen[keyword])} and in "
                        f"{self._called(index)}"
                    )
                seen[keyword] = index

    def _called(self, index: int) -> str:
        return f"model {index + 1} ({self.models[index].name})"

    @property
    def name(self) -> str:
        """The names of all: "wakewords.w4a8 + hey_robot.w4a8"."""
        return " + ".join(model.name for model in self.models)

    def model_of(self, keyword: str) -> Model:
        """The model that knows a keyword."""
        return next(model for model in self.models if keyword in model.keywords)

    def valid(self, keywords: Iterable[str]) -> tuple[str, ...]:
        """Return keywords as a tuple. Raises ConfigError for one that no model knows."""
        who = "the model knows" if len(self.models) == 1 else "the models know"
        return valid_keywords(keywords, self.keywords, who)

    def settings(
        self, thresholds: Mapping[str, float] | float | None, keywords: Iterable[str] | None
    ) -> tuple[Settings, ...]:
        """What each model listens for.

        thresholds: by keyword of any of the models, or one number for all. keywords: the wanted ones; None is all.
        Raises ConfigError for a keyword that no model knows, and for a threshold that cannot be.
        """
        if thresholds is None:
            thresholds = {}
        elif not isinstance(thresholds, Mapping):
            thresholds = dict.fromkeys(self.keywords, float(thresholds))
        self.valid(thresholds)
        check_numbers("threshold", thresholds, 1.0)
        wanted = None if keywords is None else self.valid(keywords)
        return tuple(
            Settings(
                {keyword: thresholds[keyword] for keyword in model.keywords if keyword in thresholds},
                None if wanted is None else tuple(keyword for keyword in wanted if keyword in model.keywords),
            )
            for model in self.models
        )
