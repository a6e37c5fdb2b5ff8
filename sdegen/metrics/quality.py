"""What samples are worth beside held-out data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.data import ArrayData
from sdegen.metrics import fit_classifier, frechet_distance, sliced_wasserstein
from sdegen.sampling.march import Solution


@dataclass(frozen=True)
class Row:
    """One line of the table: a solver at a budget, or the floor (real against real).

    frechet: between features of a classifier trained on the spot; None for data without classes.
    sliced:  sliced Wasserstein distance. failed: samples that are not finite.
    """

    solver: str
    budget: int | None
    nfe: int | None
    seconds: float | None
    frechet: float | None
    sliced: float
    failed: int = 0


class Quality:
    """Distances of samples to held-out data, with as many real samples as generated ones.

    Labelled images are also compared in the features of a small classifier, trained on the
    training half. ``floor`` is the training half's own distance: what a perfect model would get.
    """

    def __init__(self, train: ArrayData, test: ArrayData, n: int = 1000) -> None:
        self.n = min(len(train), len(test), n)
        self.real = test.x[: self.n]
        images = train.x.ndim == 4 and train.classes > 1
        self.features: Callable[[Tensor], Tensor] | None = (
            fit_classifier(train.x, train.y).features if images else None
        )
        self.floor = Row("real data (floor)", None, None, None, *self.distances(train.x[: self.n]))

    def distances(self, x: Tensor) -> tuple[float | None, float]:
        """Frechet distance in features, and sliced Wasserstein distance, of samples x (b, *)."""
        x = x.float().cpu()
        frechet = None
        if self.features is not None:
            with torch.no_grad():
                frechet = frechet_distance(self.features(x), self.features(self.real))
        return frechet, sliced_wasserstein(x, self.real)

    def row(self, name: str, budget: int | None, solution: Solution, seconds: float) -> Row:
        """The line of a solved batch; samples that failed are counted and left out."""
        good = solution.x[solution.status == 0]
        distances = self.distances(good) if len(good) > 1 else (None, float("nan"))
        failed = len(solution.x) - len(good)
        return Row(name, budget, int(solution.nfe.max()), seconds, *distances, failed)
