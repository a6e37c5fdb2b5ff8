"""Latents: the scale, the bound on a likelihood that is known, data sets of latents."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset

import sdegen as sg
from sdegen.data import ArrayData, SeededItems, gather
from sdegen.exact import Gaussian, exact_model
from sdegen.files import read_header
from sdegen.latents import Encoded, Latent, encoded, fit_scale, latent_elbo
from sdegen.networks import KLAutoencoder, VQAutoencoder
from tests.cases import close, refused
from tests.latents.ppca import PPCA

FLOW: dict[str, Any] = {"solver": sg.Heun(), "steps": 2, "divergence": "exact", "scaled": False}
"""Of standard normal data nothing flows, whatever the solver: x_t has the density of x."""


def standard(k: int) -> sg.ScoreModel:
    """A model whose samples are standard normal, exactly."""
    return exact_model(Gaussian([0.0] * k, [1.0] * k), sg.VPSDE())


@pytest.mark.parametrize("k", [1, 3])
def test_the_bound_is_the_likelihood_where_the_posterior_is_the_true_one(k: int) -> None:
    """Every draw gives it: log p(x | z) + log p(z) - log q(z | x) is log p(x), whatever z."""
    torch.manual_seed(0)
    ppca = PPCA(5, k)
    x = ppca.sample(4)
    latent = Latent(ppca, ppca.m, ppca.v.rsqrt())
    found = latent_elbo(standard(k), latent, x, prior="flow", draws=3, **FLOW)
    close(found.value, ppca.log_prob(x), 1e-10)
    assert float(found.error.max()) < 1e-10 and not found.failed
    close(found.bits(5), -ppca.log_prob(x) / (5 * math.log(2)), 1e-10)


def test_the_bound_of_a_bound_is_right_within_its_error() -> None:
    torch.manual_seed(0)
    ppca = PPCA(4, 2)
    x = ppca.sample(60)
    latent = Latent(ppca, ppca.m, ppca.v.rsqrt())
    found = latent_elbo(standard(2), latent, x, draws=4)
    off = (found.value - ppca.log_prob(x)).mean()
    assert abs(float(off)) < 4 * float(found.error.square().sum().sqrt()) / len(x) + 0.02
    assert float(found.error.min()) > 0 and found.nfe > 0


def test_a_sample_that_is_nan_has_no_bound_and_the_others_have_theirs() -> None:
    torch.manual_seed(0)
    ppca = PPCA(4, 2)
    x = ppca.sample(3)
    latent = Latent(ppca, ppca.m, ppca.v.rsqrt())
    whole = latent_elbo(standard(2), latent, x, draws=2, prior="flow", **FLOW).value
    x[1, 2] = math.nan
    with pytest.warns(UserWarning, match=r"samples \[1\] are NaN"):
        found = latent_elbo(standard(2), latent, x, draws=2, prior="flow", **FLOW)
    assert found.failed == [1] and torch.equal(found.value[[0, 2]], whole[[0, 2]])


def test_a_posterior_that_is_wrong_costs_its_divergence() -> None:
    """The gap is KL(q || true posterior): of a spread twice as wide, k (3/2 - log 2)."""

    class Wide(PPCA):
        def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            mean, std = super().posterior(x)
            return mean, 2 * std

    torch.manual_seed(0)
    ppca = Wide(4, 2)
    x, latent = ppca.sample(50), Latent(ppca, ppca.m, ppca.v.rsqrt())
    found = latent_elbo(standard(2), latent, x, prior="flow", draws=20, **FLOW)
    gap = ppca.log_prob(x) - found.value
    assert float(gap.mean()) == pytest.approx(2 * (1.5 - math.log(2)), abs=0.15)


def test_what_has_no_bound() -> None:
    coder = VQAutoencoder(1, width=4, latents=1, codes=4)
    latent, x = Latent(coder, torch.zeros(1), torch.ones(1)), torch.zeros(2, 1, 4, 4)
    model = sg.ScoreModel(lambda x, t: x, sg.VPSDE())
    with refused("no spread"):
        latent_elbo(model, latent, x)
    ppca = PPCA(3, 1)
    one = Latent(ppca, ppca.m, ppca.v.rsqrt())
    with refused("prior"):
        latent_elbo(standard(1), one, torch.zeros(1, 3), prior="sde")  # type: ignore[arg-type]
    del ppca.log_noise
    with refused("std=..."):
        latent_elbo(standard(1), one, torch.zeros(1, 3))
    with refused("std"):
        latent_elbo(standard(1), one, torch.zeros(1, 3), std=0.0)


# ------------------------------------------------------------------------------------- the scale


def test_scaled_latents_have_unit_variance() -> None:
    """Every channel's, and zero mean; of data with a tail beyond the first batch."""
    torch.manual_seed(0)
    coder = KLAutoencoder(2, width=4, latents=3)
    x = torch.randn(301, 2, 4, 4)
    x[-40:] *= 5
    latent = fit_scale(coder, ArrayData(x), batch=64)
    z = latent.encode(x).detach()
    each = z.transpose(0, 1).flatten(1)
    assert float(each.mean(1).abs().max()) < 0.1
    assert float((each.std(1) - 1).abs().max()) < 0.1  # of one draw
    mean, std = (part.detach() for part in latent.posterior(x))
    exact = mean.double().transpose(0, 1).flatten(1).var(1, correction=0)
    exact = exact + std.double().square().transpose(0, 1).flatten(1).mean(1)
    assert float((exact.sqrt() - 1).abs().max()) < 1e-5
    whole = fit_scale(coder, ArrayData(x), batch=1000)
    close(latent.scale, whole.scale, 1e-5)
    assert latent.scale.dtype == torch.float64


def test_the_scale_is_undone() -> None:
    ppca = PPCA(4, 3)
    latent = Latent(ppca, torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.1, 2.0, 30.0]))
    x = ppca.sample(5)
    mean, std = ppca.posterior(x)
    close(latent.decode(latent.encode(x, 0.0)), ppca.decode(mean), 1e-12)
    z = torch.randn(5, 3, dtype=torch.float64)
    close(latent.decode(latent.encode(x, z)), ppca.decode(mean + std * z), 1e-12)
    draws = [latent.encode(x, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*draws)


@pytest.mark.parametrize(
    ("shift", "scale", "said"),
    [
        ([0.0], [1.0, 1.0], r"\(channels,\)"),
        ([0.0], [0.0], "above 0"),
        ([math.nan], [1.0], "finite"),
    ],
)
def test_scales_that_are_none(shift: list[float], scale: list[float], said: str) -> None:
    with refused(said):
        Latent(PPCA(2, 1), torch.tensor(shift), torch.tensor(scale))


def test_latents_of_another_scale_are_refused() -> None:
    latent = Latent(PPCA(3, 2), torch.zeros(2), torch.ones(2))
    with refused("2 channels"):
        latent.decode(torch.zeros(1, 3))


class Stream(IterableDataset):  # type: ignore[type-arg]
    """A stream."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(())


def test_a_scale_is_of_the_whole_data() -> None:
    with refused("stream"):
        fit_scale(PPCA(3, 1), Stream())
    flat = ArrayData(torch.zeros(5, 1, 4, 4))
    coder = VQAutoencoder(1, width=4, latents=1, codes=4)
    with refused("Channel 0"):
        torch.nn.init.zeros_(coder.encoder[-1].weight)
        fit_scale(coder, flat)


# ------------------------------------------------------------------------------- data of latents


def coded(n: int = 6) -> tuple[ArrayData, Latent]:
    torch.manual_seed(0)
    data = ArrayData(torch.randn(n, 1, 4, 4), torch.arange(n) % 2, names=["a", "b"])
    return data, fit_scale(KLAutoencoder(1, width=4, latents=2), data, batch=4)


def test_latents_are_drawn_afresh_and_again() -> None:
    data, latent = coded()
    found = SeededItems(encoded(data, latent), seed=3)
    first, second, again = found[2, 0], found[2, 1], found[2, 0]
    assert not torch.equal(first[0], second[0]) and torch.equal(first[0], again[0])
    assert int(first[1]) == int(data.y[2])


def test_what_is_drawn_is_the_posterior() -> None:
    data, latent = coded()
    found = encoded(data, latent)
    torch.manual_seed(0)
    z = torch.stack([found[1][0] for _ in range(3000)])
    mean, std = (part.detach() for part in latent.posterior(data.x[1:2]))
    assert float(((z.mean(0) - mean[0]) / std[0]).abs().max()) < 4.5 / math.sqrt(3000)
    assert float((z.std(0) / std[0] - 1).abs().max()) < 0.06


def test_latents_at_rest_are_one_draw() -> None:
    data, latent = coded()
    found = encoded(data, latent)
    still = gather(found)
    assert torch.equal(still.x, gather(found).x)
    assert torch.equal(still.y, data.y) and still.names == ("a", "b")
    assert found.shape == (2, 2, 2) and len(found) == 6


def test_latents_are_kept_and_known(tmp_path: Path) -> None:
    data, latent = coded()
    path = tmp_path / "z.safetensors"
    made, kept = encoded(data, latent, path), encoded(data, latent, path)
    assert torch.equal(made.mean, kept.mean) and torch.equal(made.std, kept.std)
    assert torch.equal(kept.y, data.y) and read_header(path)["n"] == 6
    assert list(tmp_path.iterdir()) == [path]
    other = KLAutoencoder(1, width=4, latents=2)
    with refused("another coder"):
        encoded(data, Latent(other, latent.shift, latent.scale), path)
    with refused("another data set"):
        encoded(ArrayData(data.x + 1, data.y), latent, path)
    middle = data.x.clone()
    middle[3, 0, 1, 2] += 1e-3
    for others in (ArrayData(middle, data.y), ArrayData(data.x, 1 - data.y)):
        with refused("another data set"):
            encoded(others, latent, path)
    with refused("no nn.Module"):
        encoded(
            ArrayData(torch.zeros(3, 4)), Latent(PPCA(4, 1), torch.zeros(1), torch.ones(1)), path
        )


class Told(ArrayData):
    """Data with a condition of their own."""

    def __getitem__(self, i: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:  # type: ignore[override]
        return self.x[i], {"y": self.y[i], "tokens": torch.full((3,), i)}


def test_conditions_stay_beside_their_latents(tmp_path: Path) -> None:
    data, latent = coded()
    told = Told(data.x, data.y)
    for found in (
        encoded(told, latent),
        encoded(told, latent, tmp_path / "z"),
        encoded(told, latent, tmp_path / "z"),
    ):
        _, given = found[4]
        assert given["tokens"].tolist() == [4, 4, 4] and int(given["y"]) == 0
        assert isinstance(found.plain, Encoded) and found.plain[4][1]["tokens"].tolist() == [4] * 3
        assert torch.equal(found.plain[4][0], found.plain[4][0])
