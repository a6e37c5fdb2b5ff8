"""What samples are worth beside held-out data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.data import ArrayData, gather
from sdegen.metrics.classifier import ImageClassifier, fit_classifier
from sdegen.metrics.frechet import frechet_distance
from sdegen.metrics.sliced import distance_of_projections, project
from sdegen.sampling.march import Solution
from sdegen.solvers.solver import arrived

AT_ONCE = 1000
"""Images that the classifier looks at together."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a solver at a budget, or the floor (real against real).

    frechet: between features of a classifier trained on the spot; None for data without classes
    and where one side is a single sample.  sliced: sliced Wasserstein distance; both None where
    nothing was measured.  failed: samples that are not finite.
    """

    solver: str
    budget: int | None
    nfe: int | None
    seconds: float | None
    frechet: float | None
    sliced: float | None
    failed: int = 0


class Seen(NamedTuple):
    """What distances ask of n samples: projections (p, n), and features (n, 64) of images."""

    projections: Tensor
    features: Tensor | None


class Quality:
    """Distances of samples to held-out data, which are measured once and kept as a few numbers.

    Labelled images are also compared in the features of a small classifier, trained on the
    training data. Of training and held-out data a part is taken, ``most`` of each, in which the
    classes have their shares (``gather``, with the seed).
    """

    def __init__(self, train: ArrayData, test: ArrayData, most: int = 2000, seed: int = 0) -> None:
        images = train.x.ndim == 4 and len(train.y.unique()) > 1
        self.classifier = fit_classifier(train.x, train.y) if images else None
        self.train = self.look(gather(train, most, seed).x)
        self.real = self.look(gather(test, most, seed).x)

    def look(self, x: Tensor) -> Seen:
        """What is kept of samples x (n, *)."""
        x = x.float().cpu()
        features = None
        if self.classifier is not None:
            with torch.no_grad():
                features = torch.cat([self.classifier.features(part) for part in x.split(AT_ONCE)])
        return Seen(project(x).float(), features)

    def distances(self, x: Tensor) -> tuple[float | None, float]:
        """Frechet distance in features, and sliced Wasserstein distance, of samples x (b, *)."""
        return self.between(self.look(x))

    def between(self, seen: Seen) -> tuple[float | None, float]:
        """The same of samples that were looked at."""
        frechet, a, b = None, seen.features, self.real.features
        if a is not None and b is not None and min(len(a), len(b)) > 1:
            frechet = frechet_distance(a, b)
        pair = seen.projections.double(), self.real.projections.double()
        return frechet, distance_of_projections(*pair)

    def floor(self, n: int) -> Row:
        """What a perfect model would get with n samples: the distance of n training data, or of
        as many as there are."""
        features = None if self.train.features is None else self.train.features[:n]
        seen = Seen(self.train.projections[:, :n], features)
        return Row("real data (floor)", None, None, None, *self.between(seen))

    def tensors(self) -> dict[str, Tensor]:
        """All there is, by name, for a file; ``Quality.of`` reads it."""
        found: dict[str, Tensor] = {}
        for name, seen in (("train", self.train), ("real", self.real)):
            found |= {f"{name}.{k}": v for k, v in seen._asdict().items() if v is not None}
        if self.classifier is not None:
            found |= {f"classifier.{k}": v for k, v in self.classifier.state_dict().items()}
        return found

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Quality:
        """From what ``tensors`` gave; ValueError where something is missing."""
        new = cls.__new__(cls)
        begin = "classifier."
        weights = {k.removeprefix(begin): v for k, v in tensors.items() if k.startswith(begin)}
        try:
            new.train, new.real = (
                Seen(tensors[f"{name}.projections"], tensors.get(f"{name}.features"))
                for name in ("train", "real")
            )
            new.classifier = None
            if weights:
                channels, classes = weights["body.0.weight"].shape[1], len(weights["head.bias"])
                new.classifier = ImageClassifier(channels, classes).eval()
                new.classifier.load_state_dict(weights)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"These are not the numbers of a Quality: {error}.") from None
        return new


def row_of(
    name: str, budget: int | None, solution: Solution, seconds: float, quality: Quality | None
) -> Row:
    """The line of a solved batch; samples that failed are counted and left out. Without a
    ``quality`` nothing is measured."""
    good = arrived(solution.status)
    measured = quality is not None and bool(good.any())
    frechet, sliced = quality.distances(solution.x[good]) if measured else (None, None)  # type: ignore[union-attr]
    failed = int((~good).sum())
    return Row(name, budget, int(solution.nfe.max()), seconds, frechet, sliced, failed)
