"""Published names, and what they are here: where someone looking for them lands.

A function in small letters returns the arguments of ``sample`` and ``solve``:

    sg.sample(model, (64, 3, 32, 32), **sg.recipes.edm(18), seed=0)

Its n is the number of times at which the network is asked to start a step, the last of them the
step to sigma = 0 (``denoise=True``): n - 1 steps of the walk's grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from sdegen import walks
from sdegen.checks import number, whole
from sdegen.noise.source import Fresh, Inflated, Noise
from sdegen.solvers import DDIM, Ancestral, Heun, Multistep
from sdegen.walks.grids import Grid, karras, leading, linspace


def DDPM(variance: Literal["small", "large"] = "small") -> Ancestral:
    """Ho et al. (2020), alg. 2: ancestral sampling, on DDPM's betas or on any other levels."""
    return Ancestral(variance)


def ddim(n: int = 50, eta: float = 0.0, walk: str | Grid = leading) -> dict[str, Any]:
    """Song, Meng & Ermon (2021): DDIM(eta) on n of DDPM's steps, n network calls.

    walk: the spacing, ``ddim_quadratic`` for their CIFAR-10; another grid on another SDE.
    """
    return {"solver": DDIM(eta), "walk": walk, **steps(n)}


def edm(
    n: int = 18,
    S_churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = math.inf,
    S_noise: float = 1.0,
    noise: Noise | None = None,
) -> dict[str, Any]:
    """Karras et al. (2022), alg. 2, and alg. 1 at S_churn = 0; 2 n - 1 network calls.

    On any linear SDE, stepped in rho = sigma / alpha. A climb ends at T at the latest. S_noise
    other than 1 inflates a noise source, so that it takes ``noise`` in place of a seed.
    """
    by = partial(walks.churn, S_churn=S_churn, S_min=S_min, S_max=S_max, hop=True)
    return {"solver": Heun("rho"), **climbing(by, karras), **steps(n), **inflated(S_noise, noise)}


def restart(
    n: int = 18,
    intervals: Sequence[tuple[int, int, float, float]] = ((3, 2, 0.06, 0.30),),
    S_noise: float = 1.0,
    noise: Noise | None = None,
) -> dict[str, Any]:
    """Xu et al. (2023), alg. 1: EDM's Heun; 2 n - 1 + sum of 2 K (N_Restart - 1) network calls.

    intervals: [N_Restart, K, t_min, t_max] each, as in their tables, where t is rho = sigma /
    alpha and N_Restart counts times. The default is theirs for CIFAR-10, 43 calls.
    """
    known = [(low, high, K, N - 1) for N, K, low, high in intervals]
    by = partial(walks.restart, intervals=known)
    return {"solver": Heun("rho"), **climbing(by, karras), **steps(n), **inflated(S_noise, noise)}


def repaint(
    n: int = 250, jump_length: int = 10, resamplings: int = 10, grid: Grid = linspace
) -> dict[str, Any]:
    """Lugmayr et al. (2022), alg. 1, without its condition: DDPM's steps, resampled.

    What is known of the picture is the model's business.
    """
    by = partial(walks.repaint, jump_length=jump_length, resamplings=resamplings)
    return {"solver": DDPM(), **climbing(by, grid), **steps(n)}


def recommended(nfe: int, strength: float = 1.0, jumps: bool = False) -> dict[str, Any]:
    """The solver of the flow and the walk for a number of network calls: not published, measured.

    Four values, from 40 calls on five, and a polynomial in the wide clock, corrected, on the
    focused walk, which is eased below 10 calls; with fewer than 12 the last step is Euler's.
    ``solve`` and ``sample`` take it where no solver is given. docs/benchmarks.md holds it against
    every other.

    strength, jumps: of guidance, as the model says them (CFG's scale). Above 1 ``guided`` holds,
    and nfe are calls of the guided model, steps, each of which may be several evaluations.
    """
    whole("nfe", nfe, 1)
    if number("strength", strength) > 1:
        return {"solver": guided(nfe, strength, jumps), "walk": "focused", "steps": nfe}
    k = 4 if nfe < 40 else 5
    solver = Multistep(k, corrector=k, clock="wide", euler_at_final=nfe < 12)
    return {"solver": solver, "walk": "eased", "nfe": nfe}


def guided(steps: int, strength: float, jumps: bool) -> Multistep:
    """The solver for a guided model: with m = steps / strength, a polynomial through

    2 values below m = 4, from there on 4, from m = 8 and 40 steps on 5, and from m = 1 on a
    corrector of as many, of 3 at least

    What guidance adds to x0 changes with x in proportion to its scale, so that m counts the steps
    there are for each unit of it: with few of them a polynomial amplifies more than it gains, and
    below m = 1 a corrector too. There are never more values than without guidance. Where the scale
    jumps along the way no polynomial beyond two values gains anything. Measured on scales from 2
    to 16 (docs/benchmarks.md, which says too where it loses).
    """
    m = steps / strength
    k = 2 if jumps or m < 4 else 4 if m < 8 or steps < 40 else 5
    return Multistep(k, corrector=max(k, 3) if m >= 1 else 0, clock="wide")


def steps(n: int) -> dict[str, Any]:
    """n - 1 steps and the one to sigma = 0."""
    if n < 2:
        raise ValueError(f"A published walk has n >= 2 times, but n = {n!r}.")
    return {"steps": n - 1, "denoise": True}


def climbing(by: walks.Climb, grid: Grid) -> dict[str, Any]:
    """The walk of a grid that climbs."""
    return {"walk": partial(walks.zigzag, grid=grid, by=by)}


def inflated(S_noise: float, noise: Noise | None) -> dict[str, Any]:
    """The noise source, if there is anything to say about it."""
    if S_noise != 1:
        return {"noise": Inflated(S_noise, Fresh() if noise is None else noise)}
    return {} if noise is None else {"noise": noise}
