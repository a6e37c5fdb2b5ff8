"""References: where the exact flow ends, from two integrators that know nothing of each other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdegen.bench.problems import Problem
from sdegen.march import solve
from sdegen.score import ScoreModel
from sdegen.sde import LinearSDE, expand
from sdegen.solvers import AdaptiveRK

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
    from sdegen.training.files import read_tensors, write_tensors

    about = {
        "version": VERSION,
        "problem": problem.fingerprint(),
        "sde": str(sde),
        "n": n,
        "seed": seed,
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{key}.safetensors"
    if path.is_file():
        kept, said = read_tensors(path)
        return Reference(kept["starts"], kept["ends"], said["agreement"])
    model = problem.model(sde)
    top = sde(torch.tensor(sde.T, dtype=torch.float64))
    starts = problem.noised(top, n, seed)
    ours, theirs = runge_kutta(model, starts), dop853(model, starts)
    agreement = float((ours - theirs).reshape(n, -1).square().mean(1).sqrt().max())
    if not agreement <= limit:
        raise ValueError(
            f"The two reference integrators disagree by {agreement:.2g} (limit {limit:g}) under "
            f"{sde}: there is nothing to compare solvers with."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {"starts": starts, "ends": theirs}, {**about, "agreement": agreement})
    return Reference(starts, theirs, agreement)


def runge_kutta(model: ScoreModel, x: Tensor) -> Tensor:
    """Ours: Dormand and Prince's pair in lam, the worst sample to 1e-10."""
    return solve(model, x, solver=AdaptiveRK(clock="lam", rtol=1e-10, atol=1e-10)).x


def dop853(model: ScoreModel, x: Tensor) -> Tensor:
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
