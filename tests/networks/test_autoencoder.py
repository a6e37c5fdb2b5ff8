"""Autoencoders: shapes and refusals, the KL of a Gaussian, and codes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from sdegen.losses import reconstruction
from sdegen.networks import Codebook, KLAutoencoder, VQAutoencoder, perplexity
from tests.cases import close, refused

SMALL = {"width": 4, "latents": 3, "mults": (1, 2)}


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kind", [KLAutoencoder, VQAutoencoder])
def test_an_autoencoder_goes_down_and_up(kind: type, dims: int) -> None:
    coder, x = kind(2, dims=dims, **SMALL), torch.randn(3, 2, *[4] * dims)
    mean, std = coder.posterior(x)
    assert mean.shape == std.shape == (3, *coder.latent_shape(x.shape[1:])) == (3, 3, *[2] * dims)
    assert coder.decode(mean).shape == x.shape
    assert coder(x).x.shape == x.shape and coder(x).cost.shape == (3,)


def test_one_level_keeps_the_resolution() -> None:
    coder = KLAutoencoder(1, width=4, mults=[1], blocks=0, latents=2)
    assert coder.latent_shape((1, 5, 3)) == (2, 5, 3)


@pytest.mark.parametrize(
    ("shape", "said"),
    [((3, 8, 8), "of 2 channels"), ((2, 8), "dims = 2"), ((2, 6, 9), "multiples of 2, not 9")],
)
def test_data_that_do_not_fit_are_refused(shape: tuple[int, ...], said: str) -> None:
    coder = KLAutoencoder(2, **SMALL)
    with refused(said):
        coder.posterior(torch.zeros(1, *shape))
    with refused(r"Latents are \(B, 3"):
        coder.decode(torch.zeros(1, 2, 4, 4))


def test_settings_that_no_autoencoder_has() -> None:
    with refused(r"mults = \[\]"):
        KLAutoencoder(2, mults=[])
    with refused("kl_weight"):
        KLAutoencoder(2, kl_weight=-1)
    with refused("codes"):
        VQAutoencoder(2, codes=1)


def test_the_cost_is_the_kl_to_a_standard_normal() -> None:
    """As torch's distributions have it, weighted and per value of x."""
    coder, x = KLAutoencoder(2, kl_weight=0.3, **SMALL), torch.randn(4, 2, 4, 4)
    q = Normal(*coder.posterior(x))
    known = kl_divergence(q, Normal(0.0, 1.0)).flatten(1).sum(1) * 0.3 / x[0].numel()
    close(coder(x).cost, known, 1e-6)


def test_the_logarithm_of_a_variance_is_kept_within_bounds() -> None:
    coder = KLAutoencoder(1, width=4, latents=1, mults=[1])
    leave = coder.encoder[-1]
    for bias, bound in ((1e6, 20.0), (-1e6, -30.0)):
        torch.nn.init.constant_(leave.bias, bias)
        _, std = coder.posterior(torch.randn(2, 1, 3, 3))
        close(2 * std.log(), torch.full_like(std, bound), 1e-4)


def test_the_noise_at_its_best_is_the_error() -> None:
    """d loss / d log s = 1 - mse / s^2 vanishes at s^2 = mse, where the loss is the entropy."""
    coder, x = (
        KLAutoencoder(1, width=4, latents=1, mults=[1], kl_weight=0),
        torch.randn(5, 1, 3, 3),
    )
    torch.manual_seed(1)
    mse = (coder(x).x - x).square().mean().detach()
    coder.log_noise.data = 0.5 * mse.log()
    torch.manual_seed(1)
    loss = reconstruction(coder, x).mean()
    loss.backward()
    assert abs(float(coder.log_noise.grad)) < 1e-5
    close(loss, 0.5 * torch.log(2 * math.pi * math.e * mse), 1e-5)
    with refused("floating point"):
        reconstruction(coder, torch.zeros(1, 1, 3, 3, dtype=torch.uint8))


# ------------------------------------------------------------------------------------------ codes


def test_quantising_twice_is_quantising_once() -> None:
    book = Codebook(50, 3)
    q = book.quantise(torch.randn(4, 3, 5, 2))
    assert torch.equal(book.quantise(q), q)
    index = book.nearest(q)
    assert torch.equal(book.look_up(index), q) and index.shape == (4, 5, 2)


def test_the_nearest_code_is_the_nearest() -> None:
    """By a search over all of them in float64."""
    book, z = Codebook(7, 2), torch.randn(6, 2, 3)
    apart = (z.double()[..., None] - book.codes.double().T[None, :, None]).square().sum(1)
    assert torch.equal(book.nearest(z), apart.argmin(-1))
    with refused("as many channels"):
        book.nearest(torch.zeros(2, 3))


@pytest.mark.parametrize("how", ["autocast", "cast"])
def test_codes_learn_in_full_precision(how: str) -> None:
    """Under autocast as without; a codebook of bfloat16 finds its codes."""
    torch.manual_seed(0)
    book, z = Codebook(5, 3), torch.randn(200, 3)
    alone = copy.deepcopy(book)
    alone(z)
    if how == "autocast":
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            book(z)
        live = alone.counts == book.counts
        assert live.any() and torch.equal(book.sums[live], alone.sums[live])
    else:
        half = book.bfloat16()
        q = half.quantise(z.bfloat16())
        assert torch.equal(half.quantise(q), q)
        half(z.bfloat16())
        assert half.codes.dtype == torch.bfloat16 and half.codes.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_goes_straight_through(training: bool) -> None:
    book = Codebook(9, 2).train(training)
    z = torch.randn(5, 2, 3, requires_grad=True)
    weight = torch.randn(5, 2, 3)
    (book(z) * weight).sum().backward()
    assert z.grad is not None and torch.equal(z.grad, weight)


def test_the_perplexity_of_k_that_come_alike_is_k() -> None:
    assert perplexity(torch.arange(6).repeat(4).reshape(4, 6), 10) == pytest.approx(6, rel=1e-12)
    assert perplexity(torch.zeros(5, dtype=torch.int64), 10) == pytest.approx(1)
    with refused("no places"):
        perplexity(torch.zeros(0, dtype=torch.int64), 3)


def test_codes_become_the_means_of_what_comes_to_them() -> None:
    """k-means: with two heaps two codes end in their means, and a code apart from both is put
    among them."""
    torch.manual_seed(0)
    heaps = torch.tensor([[-3.0, 0.0], [3.0, 1.0]])
    book = Codebook(3, 2, decay=0.5)
    book.codes.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0], [99.0, 99.0]]))
    book.sums.copy_(book.codes)
    for _ in range(60):
        book(heaps.repeat(20, 1) + 0.01 * torch.randn(40, 2))
    apart = torch.cdist(heaps, book.codes)
    assert float(apart.min(1).values.max()) < 0.02 and float(apart.min(0).values.max()) < 0.1


def test_moving_averages_of_counts_and_sums() -> None:
    """One batch by hand: N and m of Oord et al. (2017), eqs. 6-8, smoothed."""
    book, z = Codebook(3, 1, decay=0.9, restart=0.0).double(), torch.tensor([[0.0], [0.2], [1.1]])
    start = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    book.codes.copy_(start), book.sums.copy_(start)
    book(z.double())
    counts = torch.tensor([0.9 + 0.2, 0.9 + 0.1, 0.9], dtype=torch.float64)
    sums = 0.9 * start + 0.1 * torch.tensor([[0.2], [1.1], [0.0]], dtype=torch.float64)
    total = counts.sum()
    smooth = (counts + 1e-5) / (total + 3e-5) * total
    close(book.counts, counts, 1e-7)
    close(book.codes, sums / smooth[:, None], 1e-7)


def test_codes_at_rest_do_not_move() -> None:
    book = Codebook(4, 2).eval()
    before = book.codes.clone()
    book(torch.randn(8, 2))
    assert torch.equal(book.codes, before)


def test_the_cost_of_codes_is_what_they_are_off_by() -> None:
    coder = VQAutoencoder(1, width=4, latents=2, codes=5).eval()
    x = torch.ones(2, 1, 4, 4)
    z, std = coder.posterior(x)
    off = (z - coder.codebook.quantise(z)).square().flatten(1).mean(1)
    close(coder(x).cost, 0.25 * off, 1e-6)
    assert not std.any()
    close(coder.decode(z), coder(x).x, 1e-5)


def test_processes_add_up_what_came_to_their_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two halves of a batch, each with what the other reports, learn what the whole teaches."""
    torch.manual_seed(0)
    z, alone = torch.randn(8, 2), Codebook(4, 2, restart=0.0)
    halves = [Codebook(4, 2, restart=0.0) for _ in range(2)]
    for half in halves:
        half.load_state_dict(alone.state_dict())
    reported: list[torch.Tensor] = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda tensor, source: None)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda new: reported.append(new.clone()))
    for half, part in zip(halves, z.split(4), strict=True):
        half(part)
    both = reported[0] + reported[1]
    for half, part in zip(halves, z.split(4), strict=True):
        half.load_state_dict(alone.state_dict())
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda new: new.copy_(both))
        half(part)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    alone(z)
    for half in halves:
        close(half.codes, alone.codes, 1e-5)
        close(half.counts, alone.counts, 1e-6)
