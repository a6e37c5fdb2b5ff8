"""Grids: plain functions (sde, n) -> n + 1 times in float64, from T down to t_min.

A grid decides where a solver stops on its way. Both ends are hit exactly; ``start`` and ``stop``
default to the SDE's own T and t_min. lam and rho are those of the SDE's ``reference``: its own,
unless levels differ from coordinate to coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import fixed, number, uncallable
from sdegen.sde.inverse import bisect
from sdegen.sde.level import NO_SIGNAL
from sdegen.sde.process import SDE, linear
from sdegen.sde.schedules import DiscreteVPSDE
from sdegen.walks.walk import Walk, check_walk

Grid = Callable[[SDE, int], Tensor]
WalkLike = str | Grid | Tensor | Sequence[float] | Walk
"""What a walk may be given as: a grid's name, a grid, times (n + 1,), or a walk already made."""


def as_times(walk: Any) -> Any:
    """A walk as it was given; times of another library's array, as numpy's, as a tensor."""
    listed = hasattr(walk, "__array__") and not isinstance(walk, Tensor)
    return torch.as_tensor(walk) if listed else walk


def uniform(sde: SDE, n: int, start: float | None = None, stop: float | None = None) -> Tensor:
    """Equal steps in time, as Song et al. (2021) take them."""
    return through(sde, n, start, stop, lambda ends: torch.lerp(ends[0], ends[1], ramp(n)))


def quadratic(sde: SDE, n: int, start: float | None = None, stop: float | None = None) -> Tensor:
    """Equal steps in sqrt(t): finer near the data.  Song, Meng & Ermon (2021), app. D.2."""
    return through(
        sde, n, start, stop, lambda ends: torch.lerp(ends[0].sqrt(), ends[1].sqrt(), ramp(n)) ** 2
    )


def log_snr(sde: SDE, n: int, start: float | None = None, stop: float | None = None) -> Tensor:
    """Equal steps in lam = log(alpha / sigma).  Lu et al. (2022a), sec. 3.3."""
    sde = linear(sde, "The log_snr grid", "use walk='uniform'").reference

    def times(ends: Tensor) -> Tensor:
        lam = finite(sde, sde(ends).lam)
        return sde.time(torch.lerp(lam[0], lam[1], ramp(n)))

    return through(sde, n, start, stop, times)


def straight(sde: SDE, n: int, start: float | None = None, stop: float | None = None) -> Tensor:
    """Equal steps in tau = sigma / (alpha + sigma), the time of the straight flow: finite at both
    ends of every linear SDE, and FlowSDE's own uniform steps."""
    sde = linear(sde, "The straight grid", "use walk='uniform'").reference

    def times(ends: Tensor) -> Tensor:
        tau = sde(ends).tau
        inside = torch.lerp(tau[0], tau[1], ramp(n))[1:-1]
        return torch.cat([ends[:1], sde.time(torch.log1p(-inside) - inside.log()), ends[1:]])

    return through(sde, n, start, stop, times)


def karras(
    sde: SDE, n: int, start: float | None = None, stop: float | None = None, power: float = 7.0
) -> Tensor:
    """Equal steps in rho^(1 / power), rho = sigma / alpha.  Karras et al. (2022), eq. 5."""
    sde = linear(sde, "The karras grid", "use walk='uniform'").reference
    if not number("power", power) > 0:
        raise ValueError(f"karras needs power > 0, but power = {power!r}.")

    def times(ends: Tensor) -> Tensor:
        roots = (finite(sde, -sde(ends).lam) / power).exp()
        return sde.time(-power * torch.lerp(roots[0], roots[1], ramp(n)).log())

    return through(sde, n, start, stop, times)


def focused(
    sde: SDE,
    n: int,
    start: float | None = None,
    stop: float | None = None,
    center: float = 1.0,
    width: float = 4.0,
    strength: float = 4.0,
) -> Tensor:
    """Equal steps in lam + strength width tanh((lam - center) / width): log_snr, finer about one
    level by 1 + strength.

    There, at rho = 1 / e for data in [-1, 1], a sample takes its shape: x0 hardly changes with
    lam long before and long after. Measured in docs/benchmarks.md.
    """
    sde = linear(sde, "The focused grid", "use walk='uniform'").reference
    if not (number("width", width) > 0 and number("strength", strength) >= 0):
        raise ValueError(
            f"focused needs width > 0 and strength >= 0, but they are {width!r} and {strength!r}."
        )

    def at(lam: Tensor) -> Tensor:
        return lam + strength * width * torch.tanh((lam - center) / width)

    def times(ends: Tensor) -> Tensor:
        lam = finite(sde, sde(ends).lam)
        goal = torch.lerp(at(lam[0]), at(lam[1]), ramp(n))
        low, high = lam.min().expand(n + 1), lam.max().expand(n + 1)
        return sde.time(bisect(lambda middle: at(middle) < goal, low, high))

    return through(sde, n, start, stop, times)


def eased(
    sde: SDE,
    n: int,
    start: float | None = None,
    stop: float | None = None,
    share: float | None = None,
) -> Tensor:
    """The focused grid, with fewer than ten steps nearer to equal ones of tau:

        tau = (1 - share) straight + share focused

    share: by default 1, below ten steps 3/4, below five 1/2. Few focused steps are long where
           there is most noise, and what is wrong there stays. Measured in docs/benchmarks.md.
    """
    if share is None:
        share = 1.0 if n >= 10 else 0.75 if n >= 5 else 0.5
    if not 0 <= number("share", share) <= 1:
        raise ValueError(f"eased needs a share within [0, 1], but it is {share!r}.")
    if share == 1:
        return focused(sde, n, start, stop)
    sde = linear(sde, "The eased grid", "use walk='uniform'").reference

    def times(ends: Tensor) -> Tensor:
        one, two = (sde(grid(sde, n, start, stop)[1:-1]).tau for grid in (straight, focused))
        tau = torch.lerp(one, two, share)
        return torch.cat([ends[:1], sde.time(torch.log1p(-tau) - tau.log()), ends[1:]])

    return through(sde, n, start, stop, times)


def leading(sde: SDE, n: int, offset: int = 0) -> Tensor:
    """DDPM's steps 0, c, 2 c, ... with c = N // (n + 1).  Song, Meng & Ermon (2021), app. D.2.

    ``offset`` is added to each (Stable Diffusion: 1). Sampling then starts below T.
    """
    return ddpm_steps(sde, n, "leading", lambda N, K: torch.arange(K) * (N // K) + offset)


def trailing(sde: SDE, n: int) -> Tensor:
    """DDPM's steps N - 1, N - 1 - c, ..., c = N / (n + 1), rounded.  Lin et al. (2024)."""

    def steps(N: int, K: int) -> Tensor:
        c = N - (N - N / K)  # as numpy's arange rounds it, which decides where a step is halfway
        return (N - c * span(K)).round() - 1

    return ddpm_steps(sde, n, "trailing", steps)


def linspace(sde: SDE, n: int) -> Tensor:
    """DDPM's steps N - 1 to 0 at equal distances, rounded.  Nichol & Dhariwal (2021), sec. 4."""
    return ddpm_steps(sde, n, "linspace", lambda N, K: ((N - 1) / (K - 1) * span(K)).round())


def ddim_quadratic(sde: SDE, n: int) -> Tensor:
    """DDPM's steps 0 to 0.8 N at equal distances of roots.  Song, Meng & Ermon (2021), app. D.2.

    Where rounding makes the published steps repeat one another, each is taken once: the others
    go nowhere.
    """

    def steps(N: int, K: int) -> Tensor:
        roots = math.sqrt(0.8 * N) / (K - 1) * span(K)
        roots[-1] = math.sqrt(0.8 * N)
        return roots**2

    return ddpm_steps(sde, n, "ddim_quadratic", steps)


GRIDS: dict[str, Grid] = {
    "uniform": uniform,
    "quadratic": quadratic,
    "log_snr": log_snr,
    "straight": straight,
    "karras": karras,
    "focused": focused,
    "eased": eased,
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "ddim_quadratic": ddim_quadratic,
}


def gridded(sde: SDE, make: Grid, n: int) -> Walk:
    """The walk of a grid of n steps, remembered where it is bound to be the same again."""
    return (remembered if fixed((sde, make)) else made)(sde, make, n)


def made(sde: SDE, make: Grid, n: int) -> Walk:
    """The walk of a grid, which may be anyone's; ValueError for one that is not called so."""
    if refused := uncallable(make, sde, n):
        raise ValueError(
            "A walk that is a function is called as walk(sde, n) and gives n + 1 times, but "
            f"{getattr(make, '__name__', make)!r} cannot be: {refused}."
        )
    return Walk(sde, make(sde, n))


remembered = lru_cache(maxsize=64)(made)


def span(n: int) -> Tensor:
    """0, 1, ..., n - 1 in float64."""
    return torch.arange(n, dtype=torch.float64)


def ddpm_steps(sde: SDE, n: int, name: str, steps: Callable[[int, int], Tensor]) -> Tensor:
    """The times (i + 1) / N of K = n + 1 of DDPM's N steps i, so that K calls fall on them.

    The K-th call is the one that ``denoise=True`` makes: the step to alpha = 1.
    """
    if not isinstance(sde, DiscreteVPSDE):
        raise ValueError(
            f"The {name} grid picks from the steps of a DiscreteVPSDE, and {type(sde).__name__} "
            "has none: use walk='log_snr' or 'uniform'."
        )
    ramp(n)
    if n >= sde.n:
        raise ValueError(
            f"The {name} grid picks {n + 1} times for {n} steps, but DiscreteVPSDE has only "
            f"{sde.n}: use at most {sde.n - 1} steps."
        )
    i = steps(sde.n, n + 1).long().unique().flip(0)
    return check_walk(sde, (i + 1).double() / sde.n)


def ramp(n: int) -> Tensor:
    """0, 1/n, ..., 1."""
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"A walk needs a whole number of steps >= 1, but steps = {n!r}.")
    return torch.arange(n + 1, dtype=torch.float64) / n


def finite(sde: SDE, lam: Tensor) -> Tensor:
    """lam at a grid's two ends, refused where it is infinite."""
    if not bool(lam.isfinite().all() and (lam > NO_SIGNAL).all()):
        raise ValueError(
            f"log(alpha / sigma) of {type(sde).__name__} is infinite at an end of the grid: use "
            "walk='uniform', or an SDE that ends earlier and begins later, as FlowSDE(T=0.999, "
            "t_min=1e-3) does."
        )
    return lam


def through(
    sde: SDE, n: int, start: float | None, stop: float | None, times: Callable[[Tensor], Tensor]
) -> Tensor:
    """The grid from start to stop, with ends that no rounding has moved."""
    ends = torch.tensor(
        [sde.T if start is None else start, sde.t_min if stop is None else stop],
        dtype=torch.float64,
    )
    ramp(n)
    grid = times(check_walk(sde, ends))
    grid[0], grid[-1] = ends
    return check_walk(sde, grid)
