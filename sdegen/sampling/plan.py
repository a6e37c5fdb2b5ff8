"""From the arguments of ``solve`` to what it does: solver, walk, noise and start."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral

import torch
from torch import Tensor

from sdegen.checks import one_of
from sdegen.model.score import ScoreModel
from sdegen.noise.brownian import Brownian
from sdegen.noise.source import Fresh, Noise, Seeded
from sdegen.programs.remembered import fixed
from sdegen.sde.level import Instant, Level
from sdegen.sde.process import SDE, LinearSDE
from sdegen.solvers.equation import Reverse
from sdegen.solvers.solver import Solver, Status, Tally
from sdegen.walks.grids import GRIDS, Grid
from sdegen.walks.walk import check_walk


def settled(
    solver: Solver | str | None,
    model: ScoreModel,
    start: Sequence[int] | Tensor,
    steps: int | None,
    nfe: int | None,
    walk: str | Grid | Tensor | Sequence[float] | None,
    denoise: bool,
) -> tuple[Solver, str | Grid | Tensor | Sequence[float] | None]:
    """Solver and walk: those given, the recommended ones, or what "auto" finds."""
    if isinstance(solver, Solver):
        return solver, walk
    if solver is None:
        return usual(model.sde, steps, nfe, walk, denoise)
    if solver != "auto":
        raise ValueError(f'A solver is a Solver or "auto", but it is {solver!r}.')
    if nfe is None or steps is not None or walk is not None:
        raise ValueError('"auto" finds a solver and a walk for a budget: give nfe alone.')
    from sdegen.tuning.probes import automatic  # it calls sample itself

    shape = tuple(start.shape if isinstance(start, Tensor) else start)
    choice = automatic(model, shape, nfe - int(denoise))
    print(choice)
    return choice.solver, choice.walk


def usual(
    sde: SDE,
    steps: int | None,
    nfe: int | None,
    walk: str | Grid | Tensor | Sequence[float] | None,
    denoise: bool,
) -> tuple[Solver, str | Grid | Tensor | Sequence[float] | None]:
    """What is recommended for so many calls, on the walk given or on its own."""
    from sdegen.checks import whole
    from sdegen.sampling.recipes import recommended  # which knows of walks, and they of this

    if not isinstance(sde, LinearSDE):
        raise ValueError(
            f"The usual solver works in alpha and sigma, but {type(sde).__name__} gives only "
            "drift and diffusion: give a solver, such as Heun() or EulerMaruyama()."
        )
    if (steps is None) == (nfe is None) and (walk is None or isinstance(walk, str)):
        raise ValueError(f"Give exactly one of steps and nfe, but steps = {steps}, nfe = {nfe}.")
    for name, n in (("steps", steps), ("nfe", nfe)):
        if n is not None:
            whole(name, n, 1)
    given = len(walk) - 1 if isinstance(walk, Tensor | Sequence) else 0
    calls = nfe - int(denoise) if nfe is not None else steps or given
    how = recommended(max(1, calls))
    return how["solver"], how["walk"] if walk is None else walk


def spent(x: Tensor, tallies: Sequence[Tally], nfe: int, more: int) -> tuple[Tensor, Tensor]:
    """Calls (b,) and status (b,) of final states x: from what each sample's steps say of it.

    Steps that say nothing took all samples along, by so many network calls.
    """
    calls = torch.full((len(x),), nfe)
    status = torch.zeros(len(x), dtype=torch.int8, device=x.device)
    if tallies:
        calls = torch.stack([tally.nfe for tally in tallies]).sum(0) + more
        status = torch.stack([tally.status for tally in tallies]).amax(0).to(status)
    sick = ~x.reshape(len(x), -1).abs().amax(1).isfinite()
    return calls, torch.where((status == 0) & sick, int(Status.NONFINITE), status).to(torch.int8)


def source(
    seed: int | Sequence[int] | None, noise: Noise | None, solver: Solver, sde: SDE
) -> Noise:
    """The noise source that a seed or a source names; one path where the solver needs one."""
    if seed is not None and noise is not None:
        raise ValueError("Give a seed or a noise source, not both.")
    if noise is not None:
        return noise
    if solver.traits.needs_path:
        drawn = int(torch.randint(2**63 - 1, ()))
        return Brownian(drawn if seed is None else seed, sde.T)
    return Fresh() if seed is None else Seeded(seed)


def plan(
    sde: SDE,
    solver: Solver,
    steps: int | None,
    nfe: int | None,
    walk: str | Grid | Tensor | Sequence[float] | None,
    spare: int = 0,
) -> Tensor:
    """The times of the walk that ``solve``'s arguments describe, ``spare`` calls set aside."""
    if solver.traits.own_walk is not None:
        n = len(solver.traits.own_walk) - 1
        calls = solver.calls(n) + spare
        if walk is not None or steps not in (None, n) or nfe not in (None, calls):
            raise ValueError(
                f"{type(solver).__name__} comes with its own walk of {n} steps and {calls} "
                "network calls: leave out walk, steps and nfe."
            )
        return check_walk(sde, torch.tensor(solver.traits.own_walk, dtype=torch.float64))
    if isinstance(walk, Tensor) or (isinstance(walk, Sequence) and not isinstance(walk, str)):
        if steps is not None or nfe is not None:
            raise ValueError("A walk given as times has its own number of steps: leave out steps.")
        return check_walk(sde, torch.as_tensor(walk, dtype=torch.float64))
    if (steps is None) == (nfe is None):
        if steps is not None or not solver.traits.adaptive:
            raise ValueError(
                f"Give exactly one of steps and nfe, but steps = {steps} and nfe = {nfe}."
            )
        steps = 1
    if nfe is not None:
        if solver.traits.adaptive:
            raise ValueError(
                f"{type(solver).__name__} spends what its tolerances ask for: it takes no nfe."
            )
        steps = next((n for n in range(nfe, 0, -1) if solver.calls(n) + spare <= nfe), 0)
        if steps < 1:
            raise ValueError(
                f"{type(solver).__name__} needs at least {solver.calls(1) + spare} network calls, "
                f"but nfe = {nfe}."
            )
    assert steps is not None
    default = "log_snr" if isinstance(sde, LinearSDE) else "uniform"
    grid = default if walk is None else walk
    make: Grid = one_of(grid, "walk", GRIDS) if isinstance(grid, str) else grid
    times = gridded(sde, make, steps)
    # A walk that climbs comes down oftener than its grid has steps.
    while nfe is not None and solver.calls(int((times.diff() < 0).sum())) + spare > nfe:
        steps -= 1
        if steps < 1:
            raise ValueError(f"No number of steps of this walk keeps to nfe = {nfe}: give steps.")
        times = gridded(sde, make, steps)
    return times


def gridded(sde: SDE, make: Grid, n: int) -> Tensor:
    """The times of a grid of n steps, remembered where they are bound to be the same again."""
    return (remembered_grid if fixed((sde, make)) else checked_grid)(sde, make, n)


def checked_grid(sde: SDE, make: Grid, n: int) -> Tensor:
    """The times of a grid, which may be anyone's."""
    return check_walk(sde, make(sde, n))


remembered_grid = lru_cache(maxsize=64)(checked_grid)


def begin(p: Reverse, start: Sequence[int] | Tensor, top: Instant) -> Tensor:
    """The states (b, *) to start from: those given, or draws from the prior.

    Below T the prior of a linear SDE is scaled as sigma is: a VE walk from a smaller sigma starts
    from that sigma.
    """
    if isinstance(start, Tensor):
        if not start.is_floating_point() or start.ndim < 1 or len(start) == 0:
            raise ValueError(
                "x_T must be a floating-point tensor (b, *) with b >= 1, but it is "
                f"{start.dtype} of shape {tuple(start.shape)}."
            )
        return start
    shape = tuple(start)
    if not shape or not all(isinstance(n, Integral) and n >= 1 for n in shape):
        raise ValueError(f"A shape (b, *) has positive whole numbers, but it is {shape!r}.")
    dtype = p.model.dtype or torch.get_default_dtype()
    like = torch.empty(
        shape, device=p.model.device, dtype=torch.promote_types(dtype, torch.float32)
    )
    x = p.sde.prior.sample(p.noise.stream("prior")(like, top, top))
    if isinstance(p.sde, LinearSDE) and isinstance(top, Level):
        x = x * (top.sigma / p.sde(p.sde.T).sigma)
    return x
