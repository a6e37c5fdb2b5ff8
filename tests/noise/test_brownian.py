"""A Brownian path: one motion, whatever the steps, the order of queries, and the batch."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import sdegen as sg
from sdegen.exact.distributions import exact_model
from sdegen.noise.brownian import DEPTH, coefficients
from tests.cases import MIXTURE, close, normal, refused, run, slopes

LEVEL = 1e-5
T = 2.0
GRID = T / 2**20
"""Times that are multiples of this are told apart exactly."""


def at(k: float | list[float]) -> sg.sde.Instant:
    """The level at k parts in a million of the way (as a multiple of GRID)."""
    return sg.sde.Instant(torch.as_tensor(k, dtype=torch.float64) * GRID)


def like(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.empty(shape, dtype=dtype)


def increment(noise: sg.Noise, x: Tensor, t: sg.sde.Instant, s: sg.sde.Instant) -> Tensor:
    """w over the step from t to s."""
    return noise(x, t, s) * (t.t - s.t).sqrt()


def integral(noise: sg.Noise, x: Tensor, t: sg.sde.Instant, s: sg.sde.Instant) -> Tensor:
    """INT w along the step, from its increment and its area."""
    return (t.t - s.t) ** 1.5 * (noise(x, t, s) + noise.area(x, t, s) / math.sqrt(3)) / 2


STEPS = [(900_000, 700_000, 12_345), (2**20, 1, 0), (500_001, 500_000, 499_999), (7, 6, 2)]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_increments_add_up(step: tuple[int, int, int]) -> None:
    """So do the integrals: INT over t..s is INT t..r, INT r..s, and what w had at r."""
    t, r, s = map(at, step)
    noise, x = sg.Brownian(3, T), like(50, 4)
    size = float((t.t - s.t).sqrt())
    parts = increment(noise, x, t, r) + increment(noise, x, r, s)
    close(parts / size, increment(noise, x, t, s) / size, 0, 1e-12)
    areas = integral(noise, x, t, r) + integral(noise, x, r, s)
    areas = areas + (r.t - s.t) * increment(noise, x, t, r)
    # The integral is a difference of integrals from 0: a step of 2e-6 keeps six digits.
    close(areas / size**3, integral(noise, x, t, s) / size**3, 0, 2e-16 * (T / size**2) ** 1.5 * 9)


def test_the_path_is_that_of_its_halves() -> None:
    """Foster et al. (2020), followed from interval to interval, for every draw on the way."""
    h, place = 2 * T, 0b0110100101100111101001011010011
    draws = torch.eye(2 * (DEPTH + 2), dtype=torch.float64)
    W, H = h**0.5 * draws[0], (h / 12) ** 0.5 * draws[1]
    w, A = 0 * W, 0 * W
    for k in range(1, DEPTH + 2):
        Z, N = (h / 16) ** 0.5 * draws[2 * k], (h / 12) ** 0.5 * draws[2 * k + 1]
        halves = (
            (W / 2 + 1.5 * H + Z, H / 4 - Z / 2 + N / 2),
            (W / 2 - 1.5 * H - Z, H / 4 - Z / 2 - N / 2),
        )
        h, right = h / 2, place >> (DEPTH + 1 - k) & 1
        if right:
            (left, area), _ = halves
            w, A = w + left, A + h * (w + left / 2 + area)
        W, H = halves[right]
    number = torch.arange(DEPTH + 2)[:, None, None]
    for many in (torch.tensor(place), torch.tensor([[5], [place]])):
        in_w, in_A = coefficients(many, number, 2 * T)
        for want, found in ((w, in_w), (A, in_A)):
            close(torch.stack(found, 1).squeeze(-1)[:, :, -1].flatten(), want, 0, 1e-15)


def test_the_control_is_not_additive() -> None:
    t, r, s = map(at, STEPS[0])
    noise, x = sg.Seeded(3), like(50, 4)
    parts = increment(noise, x, t, r) + increment(noise, x, r, s)
    assert not torch.allclose(parts, increment(noise, x, t, s), atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("step", [(2**20, 0), (600_000, 599_000), (40, 3)], ids=str)
def test_increments_and_areas_are_normal_and_independent(
    step: tuple[int, int], dtype: torch.dtype
) -> None:
    noise, x = sg.Brownian(0, T), like(1000, 100, dtype=dtype)
    z, a = noise(x, *map(at, step)), noise.area(x, *map(at, step))
    for draw in (z, a):
        assert draw.dtype == dtype
        assert stats.kstest(draw.double().flatten().numpy(), "norm").pvalue > LEVEL
    r = float(torch.corrcoef(torch.stack([z.flatten(), a.flatten()]).double())[0, 1])
    assert 2 * stats.norm.sf(abs(r) * math.sqrt(z.numel())) > LEVEL


def test_disjoint_steps_are_independent() -> None:
    times = [at(k) for k in (2**20, 800_000, 500_000, 499_000, 65_536, 0)]
    noise, x = sg.Brownian(1, T), like(100_000)
    draws = [noise(x, t, s) for t, s in pairwise(times)]
    draws += [noise.area(x, t, s) for t, s in pairwise(times)]
    r = torch.corrcoef(torch.stack(draws)) - torch.eye(10, dtype=torch.float64)
    assert 2 * stats.norm.sf(float(r.abs().max()) * math.sqrt(100_000)) * 45 > LEVEL


def test_covariance_of_the_motion_itself() -> None:
    """Cov(w(a), w(b)) = min(a, b), counted from T down, to five standard errors."""
    times = [700_000, 400_000, 123_456, 0]
    noise, x = sg.Brownian(2, T), like(100_000)
    w = torch.stack([increment(noise, x, at(2**20), at(k)) for k in times])
    length = torch.tensor([(2**20 - k) * GRID for k in times], dtype=torch.float64)
    exact = torch.minimum(length[:, None], length)
    error = (exact**2 + torch.outer(length, length)).sqrt() / math.sqrt(100_000)
    assert bool(((w @ w.T / 100_000 - exact).abs() < 5 * error).all())


def test_every_order_of_queries_sees_one_path() -> None:
    x, times = like(3, 2, 2), [at(k) for k in (2**20, 700_001, 300_000, 5)]
    forwards = sg.Brownian(9, T)
    first = [forwards(x, t, s) for t, s in pairwise(times)]
    backwards = sg.Brownian(9, T)
    last = [backwards(x, t, s) for t, s in reversed(list(pairwise(times)))]
    for a, b in zip(first, reversed(last), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(forwards(x, times[0], times[1]), first[0])


def test_a_sample_has_its_own_path() -> None:
    """Alone, in a batch, in another order, among a part of the batch; with a time of its own."""
    t, s, x = at(800_000), at(333_333), like(4, 3)
    seeds = [5, 3, 11, 7]
    batch = sg.Brownian(seeds, T)(x, t, s)
    assert torch.equal(sg.Brownian([11, 5], T)(x[:2], t, s), batch[[2, 0]])
    whole = sg.Brownian(9, T)
    assert torch.equal(whole(x[:2], t, s), sg.Brownian(9, T)(x, t, s)[:2])
    assert torch.equal(sg.Brownian(9, T, first=2)(x[:2], t, s), whole(x, t, s)[2:])
    for noise in (sg.Brownian(seeds, T), sg.Brownian(9, T)):
        full, index = noise(x, t, s), torch.tensor([3, 1])
        assert torch.equal(noise.take(index)(x[:2], t, s), full[index])
        assert torch.equal(noise.take(index).take(index[:1] * 0 + 1)(x[:1], t, s), full[1:2])
        assert not torch.equal(full[0], full[1])
        own = noise(x, at([800_000.0, 5, 9, 7]), at([333_333.0, 1, 2, 3]))
        assert torch.equal(own[0], full[0]) and torch.equal(own[2], noise(x, at(9), at(2))[2])


def test_other_streams_are_other_noise() -> None:
    noise, x = sg.Brownian(4, T), like(1000, 100)
    before = noise(x, at(9), at(3))
    prior = noise.stream("prior")(x, at(9), at(9))
    noise.stream("corrector")(x, at(9), at(9))
    assert torch.equal(noise(x, at(9), at(3)), before)
    assert torch.equal(prior, sg.Seeded(4).stream("prior")(x, at(9), at(9)))
    r = float(torch.corrcoef(torch.stack([prior.flatten(), before.flatten()]))[0, 1])
    assert abs(r) < 0.02


@pytest.mark.parametrize(
    ("solver", "climbs"),
    [(sg.EulerMaruyama(), False), (sg.PredictorCorrector(), False), (sg.DDIM(), True)],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_source_used_twice_gives_the_same_samples(
    solver: sg.Solver, climbs: bool, wrapped: bool
) -> None:
    """Corrections and climbs too, which are no increments of the path."""
    sde = sg.VPSDE()
    model, walk = exact_model(MIXTURE, sde), sg.walks.log_snr(sde, 4)
    if climbs:
        walk = sg.walks.restart(sde, walk, [(0.3, 0.6, 2, 1)])

    def path() -> sg.Noise:
        return sg.noise.Inflated(1.1, sg.Brownian(3, 1.0)) if wrapped else sg.Brownian(3, 1.0)

    noise = path()
    first, again, fresh = (
        sg.sample(model, (3, 2), solver=solver, walk=walk, noise=source)
        for source in (noise, noise, path())
    )
    assert torch.equal(first, again) and torch.equal(first, fresh)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_path_is_refused_beyond_its_time(wrapped: bool) -> None:
    """Of what walks it, by whatever door; a flow asks nothing of it."""
    model = exact_model(MIXTURE, sg.VESDE(0.01, 5.0))
    noise: sg.Noise = sg.Brownian(0, 0.5)
    noise = sg.noise.Inflated(1.1, noise) if wrapped else noise
    says = r"runs on \[0, 0\.5\], but the walk comes by t = 1: give Brownian\(seed, sde\.T\)"
    walk = sg.walks.levels(model.sde, [1.0, 0.5, 0.1])
    for solver in (sg.EulerMaruyama(), sg.PredictorCorrector(), sg.DDIM(1.0)):
        with pytest.raises(ValueError, match=says):
            sg.sample(model, (3, 2), solver=solver, steps=4, noise=noise)
        with pytest.raises(ValueError, match=says):
            list(sg.march(solver, sg.Reverse(model, 1.0, noise), normal(3, 2), walk))
        sg.sample(model, normal(3, 2), solver=solver, steps=4, t=0.5, noise=noise)
    assert bool(sg.sample(model, (3, 2), solver="heun", steps=4, noise=noise).isfinite().all())


def test_streams_of_seeds_do_not_shift_each_other() -> None:
    """A corrector more leaves the solver's noise as it is."""
    x, now = like(2, 3), at(1)
    a, b = sg.Seeded(0), sg.Seeded(0)
    b.stream("corrector")(x, now, now)
    assert torch.equal(a(x, now, now), b(x, now, now))
    first, again = (b.stream("corrector")(x, now, now) for _ in range(2))
    assert not torch.equal(first, again) and b.stream("corrector") is b.stream("corrector")
    assert not torch.equal(first, sg.Seeded(0).stream("prior")(x, now, now))


def test_a_step_too_short_to_see_is_none() -> None:
    noise, x = sg.Brownian(0, T), like(5)
    tiny = sg.sde.Instant(at(9).t + T / 2 ** (DEPTH + 4))
    assert noise(x, tiny, at(9)).tolist() == [0.0] * 5
    assert noise.area(x, tiny, at(9)).isfinite().all()


def test_a_query_reads_nothing_back() -> None:
    seen = set()

    class Ops(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    noise, x = sg.Brownian([1, 2], T), like(2, 3)
    noise(x, at(9), at(3))
    with Ops():
        noise(x, at(8), at(2))
        noise(x, at([8.0, 7.0]), at([2.0, 1.0]))
    assert len(seen) > 5 and not seen & {"_local_scalar_dense", "nonzero", "equal"}


def test_step_sizes_converge_to_one_limit_on_the_path() -> None:
    """Seeded noise, of the same law, does not."""
    sde = sg.VPSDE(t_min=0.05)
    model, x = exact_model(MIXTURE, sde), normal(32, 2)
    walk = sg.walks.log_snr(sde, 512)

    def end(n: int, noise: sg.Noise) -> Tensor:
        return run(sg.EulerMaruyama(), model, x, walk[:: 512 // n], noise=noise)

    limit = end(512, sg.Brownian(0, sde.T))
    errors = [
        float((end(n, sg.Brownian(0, sde.T)) - limit).square().mean().sqrt()) for n in (32, 64)
    ]
    assert slopes(errors)[0] > 0.75 and errors[1] < 0.1
    assert float((end(64, sg.Seeded(0)) - limit).square().mean().sqrt()) > 0.2


def test_refused() -> None:
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with refused("with T > 0"):
            sg.Brownian(0, wrong)
    with refused("2 seeds were given for a batch of 3"):
        sg.Brownian([1, 2], T)(like(3), at(2), at(1))
    with refused("a batch that shrinks"):
        sg.Seeded(0).take(torch.tensor([0]))
