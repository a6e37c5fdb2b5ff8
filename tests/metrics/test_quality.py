"""What samples are worth: the distances they say, of fair parts of the data, kept in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdegen.data import ArrayData
from sdegen.files import read_tensors, write_tensors
from sdegen.metrics import ImageClassifier, frechet_distance, sliced_wasserstein
from sdegen.metrics import quality as module
from sdegen.metrics.quality import Quality, row_of
from sdegen.sampling.march import Solution
from tests.cases import refused


def sorted_by_class(n: int, *shape: int, seed: int) -> ArrayData:
    """Ten classes one after another, far apart, n of each."""
    y = torch.arange(10).repeat_interleave(n)
    x = torch.randn(10 * n, *shape, generator=torch.Generator().manual_seed(seed))
    return ArrayData(0.1 * x + y.view(-1, *[1] * len(shape)), y)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that has learned nothing has features too, at once."""

    def classifier(x: Tensor, y: Tensor) -> ImageClassifier:
        torch.manual_seed(0)
        return ImageClassifier(x.shape[1], int(y.max()) + 1).eval()

    monkeypatch.setattr(module, "fit_classifier", classifier)


def test_a_fair_part_of_data_sorted_by_class() -> None:
    """Real against real is near zero, where the first of each would be one class against all."""
    train, test = (sorted_by_class(100, 3, seed=seed) for seed in (0, 1))
    quality = Quality(train, test, most=200)
    x = train.x[torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:200]]
    _, far = quality.distances(train.x[:100])
    _, near = quality.distances(x)
    assert far > 2 > 1 > near
    for n in (10, 50, 200):
        assert (quality.floor(n).sliced or 0) < 0.2
    assert quality.floor(5000) == quality.floor(200)


@pytest.mark.usefixtures("untrained")
def test_the_distances_are_those_of_the_samples() -> None:
    train, test = (sorted_by_class(4, 1, 8, 8, seed=seed) for seed in (0, 1))
    quality = Quality(train, test, most=40)
    x = train.x[::3] + 0.3
    frechet, sliced = quality.distances(x)
    assert quality.classifier is not None
    with torch.no_grad():
        features = quality.classifier.features(x), quality.classifier.features(test.x)
    assert frechet == pytest.approx(frechet_distance(*features), rel=1e-4)
    assert sliced == pytest.approx(sliced_wasserstein(x, test.x), rel=1e-5)


@pytest.mark.usefixtures("untrained")
def test_what_is_kept_gives_the_same_numbers(tmp_path: Path) -> None:
    for shape in ((1, 8, 8), (3,)):
        train, test = (sorted_by_class(4, *shape, seed=seed) for seed in (0, 1))
        made = Quality(train, test)
        write_tensors(tmp_path / "q.safetensors", made.tensors(), {})
        kept = Quality.of(read_tensors(tmp_path / "q.safetensors")[0])
        assert kept.distances(train.x + 0.1) == made.distances(train.x + 0.1)
        assert kept.floor(7) == made.floor(7)
    with refused("These are not the numbers of a Quality"):
        Quality.of({"train.projections": torch.zeros(2, 2)})


@pytest.mark.usefixtures("untrained")
def test_one_sample_and_none() -> None:
    train, test = (sorted_by_class(4, 1, 8, 8, seed=seed) for seed in (0, 1))
    quality = Quality(train, test)
    status = torch.zeros(1, dtype=torch.int64)
    solution = Solution(train.x[:1], nfe=torch.tensor([3]), status=status)
    row = row_of("a", 3, solution, 0.1, quality)
    assert row.frechet is None and row.sliced is not None and row.failed == 0
    assert quality.floor(1).frechet is None
    assert row_of("a", 3, solution, 0.1, None).sliced is None
    failed = Solution(train.x[:1], nfe=torch.tensor([3]), status=status + 1)
    assert row_of("a", 3, failed, 0.1, quality).sliced is None
    alone = Quality(ArrayData(train.x[:1], train.y[:1]), ArrayData(test.x[:1], test.y[:1]))
    assert alone.floor(9).frechet is None and alone.distances(train.x)[1] > 0
