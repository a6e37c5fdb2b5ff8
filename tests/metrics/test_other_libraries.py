"""The same figures as other libraries, of the same features and images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sdegen.metrics import coverage, features_of, frechet_distance, kernel_distance, ssim
from tests.cases import close, normal


class Random(nn.Module):
    """Sixteen random features of the pixels, by a fixed matrix."""

    num_features = 16  # torchmetrics asks for it

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(3 * 8 * 8, 16, dtype=torch.float32) / 14)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh((x / 127.5 - 1).to(self.weight).flatten(1) @ self.weight)


def images(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return x // (1 + seed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the library's own
def test_torchmetrics_has_the_same_distances() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    kid = pytest.importorskip("torchmetrics.image.kid")
    net, a, b = Random(), images(300, 0), images(250, 1)
    own = features_of(net, a), features_of(net, b)
    theirs = fid.FrechetInceptionDistance(feature=net, input_img_size=(3, 8, 8))
    theirs.set_dtype(torch.float64)
    theirs.update(b, real=True)
    theirs.update(a, real=False)
    # Its covariances are differences of sums of float32 features.
    close(frechet_distance(*own), theirs.compute(), rtol=1e-5)
    # With one subset as large as both sides: of a larger one it takes a random part.
    equal = own[0][:250], own[1]
    kernel = kid.KernelInceptionDistance(feature=net, subsets=1, subset_size=250)
    kernel.update(b, real=True)
    kernel.update(a[:250], real=False)
    mean, _ = kernel.compute()
    close(kernel_distance(*equal, size=250).value, mean, rtol=1e-4)


@pytest.mark.slow
def test_torchmetrics_has_the_same_similarity() -> None:
    image = pytest.importorskip("torchmetrics.functional.image")
    x0 = normal(3, 2, 20, 17).clamp(-1, 1)
    x = (x0 + 0.2 * normal(3, 2, 20, 17, seed=1)).clamp(-1, 1)
    how = {"data_range": 2.0, "return_full_image": True}
    _, everywhere = image.structural_similarity_index_measure(x, x0, **how)
    # Its mean has a border of reflected pixels in it, Wang et al.'s has none.
    close(ssim(x, x0), everywhere[..., 5:-5, 5:-5].mean(), rtol=1e-6)


@pytest.mark.parametrize("k", [3, 5])
def test_prdc_has_the_same_shares(k: int) -> None:
    prdc = pytest.importorskip("prdc")
    data, samples = normal(80, 4, seed=1), 0.8 * normal(60, 4, seed=2) + 0.3
    theirs = prdc.compute_prdc(data.numpy(), samples.numpy(), nearest_k=k)
    own = coverage(samples, data, k)._asdict()
    assert {name: pytest.approx(value) for name, value in theirs.items()} == own
