"""References: where the exact flow ends, from two integrators that know nothing of each other."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdegen.bench.problems import Problem
from sdegen.model.denoiser import Denoiser
from sdegen.noise.brownian import Brownian
from sdegen.sampling.march import sample, solve
from sdegen.sde.level import expand
from sdegen.sde.process import LinearSDE
from sdegen.solvers import SRA1, AdaptiveRK, DPMSolverPP
from sdegen.solvers.equation import Eta
from sdegen.solvers.solver import Solver

Integrator = Callable[[Denoiser, Tensor], Tensor]
VERSION = 1
"""Of what a reference is; a change makes all cached ones another."""


@dataclass(frozen=True, eq=False)
class Reference:
    """starts: x_T (b, *); ends: x at t_min; agreement: the largest root mean square over a sample
    of the difference between both integrators; all float64."""

    starts: Tensor
    ends: Tensor
    agreement: float


def reference(
    problem: Problem, sde: LinearSDE, n: int, seed: int, folder: Path, limit: float = 1e-6
) -> Reference:
    """From the cache, or made and kept there.  ValueError if the integrators disagree by more."""
    return kept(problem, sde, n, seed, folder, {}, runge_kutta, dop853, limit)


def strong_reference(
    problem: Problem, sde: LinearSDE, eta: Eta, n: int, seed: int, folder: Path
) -> Reference:
    """The same of the reverse SDE on the Brownian motion of ``seed``: SRA1, of strong order 3/2,
    and exponential Euler, both in 400 equal steps of lam; they agree as far as the latter can."""

    def along(solver: Solver, model: Denoiser, x: Tensor) -> Tensor:
        noise = Brownian(seed, sde.T)
        return sample(model, x, solver=solver, steps=400, eta=eta, noise=noise)

    first, second = partial(along, DPMSolverPP(1)), partial(along, SRA1())
    return kept(problem, sde, n, seed, folder, {"eta": str(eta)}, first, second, math.inf)


def kept(
    problem: Problem,
    sde: LinearSDE,
    n: int,
    seed: int,
    folder: Path,
    more: dict[str, Any],
    first: Integrator,
    second: Integrator,
    limit: float,
) -> Reference:
    """What the second integrator says, if the first agrees; from the folder if it is there."""
    from sdegen.files import read_tensors, write_tensors

    about = {"version": VERSION, "problem": problem.fingerprint(), "sde": str(sde), **more}
    about |= {"n": n, "seed": seed}
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{key}.safetensors"
    if path.is_file():
        tensors, said = read_tensors(path)
        return Reference(tensors["starts"], tensors["ends"], said["agreement"])
    model = problem.model(sde, n=n)
    top = sde(torch.tensor(sde.T, dtype=torch.float64))
    starts = problem.noised(top, n, seed)
    one, other = first(model, starts), second(model, starts)
    agreement = float((one - other).reshape(n, -1).square().mean(1).sqrt().max())
    if not agreement <= limit:
        raise ValueError(
            f"The two reference integrators disagree by {agreement:.2g} (limit {limit:g}) under "
            f"{sde}: there is nothing to compare solvers with."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {"starts": starts, "ends": other}, {**about, "agreement": agreement})
    return Reference(starts, other, agreement)


def runge_kutta(model: Denoiser, x: Tensor) -> Tensor:
    """Ours: Dormand and Prince's pair in lam, the worst sample to 1e-10."""
    return solve(model, x, solver=AdaptiveRK(clock="lam", rtol=1e-10, atol=1e-10)).x


def dop853(model: Denoiser, x: Tensor) -> Tensor:
    """SciPy's method of order 8, on y = x / alpha in rho, dy/drho = eps, with log rho for time."""
    from scipy.integrate import solve_ivp

    sde = model.sde
    assert isinstance(sde, LinearSDE)
    top, bottom = (sde(torch.tensor(t, dtype=torch.float64)) for t in (sde.T, sde.t_min))
    shape = x.shape

    def slope(u: float, y: np.ndarray) -> np.ndarray:
        level = sde(sde.time(torch.tensor(-u, dtype=torch.float64)))
        state = torch.from_numpy(y).reshape(shape)
        eps = model(expand(level.alpha, state) * state, level.t).eps
        return (level.rho * eps).reshape(-1).numpy()

    start = (x / expand(top.alpha, x)).reshape(-1).numpy()
    span = (-float(top.lam), -float(bottom.lam))
    found = solve_ivp(slope, span, start, "DOP853", rtol=1e-11, atol=1e-11)
    if not found.success:
        raise ValueError(f"SciPy's reference did not arrive: {found.message}")
    y = torch.from_numpy(found.y[:, -1]).reshape(shape)
    return y * expand(bottom.alpha, y)
