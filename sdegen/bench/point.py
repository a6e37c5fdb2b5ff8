"""One point of a work-precision curve: a solver on a problem at a budget, errors and work."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import subprocess
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from sdegen.bench.errors import distances, pathwise
from sdegen.bench.peers import Peer, need
from sdegen.bench.problems import Problem
from sdegen.bench.reference import reference, strong_reference
from sdegen.bench.watch import Stopwatch, Watch, wait
from sdegen.checks import one_of, whole
from sdegen.exact.distributions import Gaussian
from sdegen.exact.orders import law
from sdegen.model.denoiser import Denoiser
from sdegen.noise.brownian import Brownian
from sdegen.sampling.choice import Chooser, pair
from sdegen.sampling.march import sample
from sdegen.sampling.plan import calls_of
from sdegen.sde.level import Level
from sdegen.sde.process import LinearSDE
from sdegen.solvers import DDIM
from sdegen.solvers.backends import SciPy, TorchDiffEq, TorchSDE
from sdegen.solvers.budget import walk_for
from sdegen.solvers.equation import Eta
from sdegen.solvers.solver import Solver
from sdegen.walks.walk import Walk

VERSION = 1
"""Of the JSON files; a report refuses those of another."""
FAR = 1_000_003
"""Added to the seed of the noise other libraries draw: none of the starts' seeds."""
SMALL = 16
"""Values of a sample up to which strong errors are measured: a Brownian path is slow."""
FINEST = 1e-12
"""The smallest tolerance: below it solvers of float64 states never arrive."""
DTYPES = {"float64": torch.float64, "float32": torch.float32}
BACKENDS: dict[type, str] = {TorchDiffEq: "torchdiffeq", TorchSDE: "torchsde", SciPy: "SciPy"}


Method = Solver | Peer | Chooser


def library_of(solver: Method) -> str:
    """Whose the method is."""
    if isinstance(solver, Peer):
        return solver.library
    return next((name for cls, name in BACKENDS.items() if isinstance(solver, cls)), "sdegen")


def run(
    solver: Solver | Peer,
    model: Denoiser,
    x: Tensor,
    *,
    walk: Any,
    nfe: int | None,
    steps: int | None,
    tol: float | None,
    seed: int,
) -> Tensor:
    """The final states; those that did not arrive are not finite.  ValueError for a budget that
    is too small."""
    if isinstance(solver, Peer):
        assert isinstance(model.sde, LinearSDE)
        adaptive = solver.traits.adaptive
        calls = calls_of(model, nfe)
        how = {"steps": 1} if adaptive else {"steps": steps, "nfe": calls, "walk": walk}
        times = walk_of(solver, model.sde, **how).times
        with torch.random.fork_rng(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.manual_seed(FAR + seed)
            return solver.solve(model, x, times, tol)
    if type(solver) in BACKENDS:
        need(BACKENDS[type(solver)])
    if solver.traits.adaptive:
        solver = replace(solver, rtol=tol, atol=tol)  # type: ignore[type-var]
        nfe = steps = walk = None
    return sample(model, x, solver=solver, nfe=nfe, steps=steps, walk=walk, seed=seed)


@dataclass(frozen=True)
class Settings:
    """How a point is measured.

    n: starts, of a solver of the flow.  draws: samples, of one that adds noise.  seed: of both.
    repeats: timed runs after the one that is measured. References and exact draws are made in
    float64 on the CPU, whatever dtype and device the solver works with.
    """

    n: int = 48
    draws: int = 2048
    seed: int = 0
    dtype: str = "float64"
    device: str = "cpu"
    repeats: int = 0

    def __post_init__(self) -> None:
        whole("n", self.n, 2)
        whole("draws", self.draws, 3)
        whole("seed", self.seed, 0)
        whole("repeats", self.repeats, 0)
        one_of(self.dtype, "dtype", DTYPES)
        if not one_of(self.device, "device", {"cpu": True, "cuda": torch.cuda.is_available()}):
            raise ValueError("device=cuda, but torch sees no CUDA device: use device=cpu.")

    def place(self, x: Tensor) -> Tensor:
        """A float64 state as the solver shall have it."""
        return x.to(self.device, DTYPES[self.dtype])


def measure(
    problem: Problem,
    sde: LinearSDE,
    solver: Method,
    settings: Settings,
    *,
    folder: Path,
    walk: Any = None,
    nfe: int | None = None,
    steps: int | None = None,
    tol: float | None = None,
) -> dict[str, Any]:
    """Errors first; then, where ``repeats`` asks for it, what it costs.

    A solver of the flow is held against the reference from n common starts, path by path; one that
    adds noise, or a walk that climbs, against exact draws of x at t_min, in distribution, with the
    floor that two sets of exact draws have.
    """
    if not isinstance(solver, Solver | Peer):
        if nfe is None:
            raise ValueError(f"{solver} is for a number of network calls: give nfe.")
        shape, guessed = (settings.n, *problem.shape), problem.model(sde, n=settings.n)
        solver, walk = pair(solver, solver.choose(guessed, shape, calls_of(guessed, nfe)))
    if isinstance(solver, Peer) and settings.dtype != "float64":
        raise ValueError(f"Other libraries run in float64, but dtype = {settings.dtype!r}.")
    if solver.traits.adaptive != (tol is not None):
        takes = (
            "a tolerance, tol" if solver.traits.adaptive else "a budget, nfe or steps, and no tol"
        )
        raise ValueError(f"{solver} takes {takes}.")
    if tol is not None and not tol >= FINEST:
        raise ValueError(f"tol must be at least {FINEST:g}, what float64 can tell, not {tol!r}.")
    watch = Stopwatch(None)

    def wrapped(net: Any) -> Stopwatch:
        watch.net = net
        return watch

    model = problem.model(sde, wrapped, settings.n)
    budget: dict[str, Any] = {"walk": walk, "nfe": nfe, "steps": steps}
    how = {**budget, "tol": tol, "seed": settings.seed}
    budget["nfe"] = calls_of(model, nfe)
    route = None if solver.traits.adaptive else walk_of(solver, sde, **budget)
    noisy = solver.eta != 0 or (route is not None and route.climbs)
    if noisy and problem.guidance is not None:
        raise ValueError(
            f"{solver} adds noise, but no law is known that a guided model would be sampled from: "
            "compare solvers of the flow."
        )
    row: dict[str, Any] = {"kind": "law" if noisy else "path"}
    if noisy:
        start = problem.noised(top(sde), settings.draws, settings.seed)
    else:
        exact = reference(problem, sde, settings.n, settings.seed, folder / "references")
        start, row["agreement"] = exact.starts, exact.agreement
    start = settings.place(start)
    begun = time.perf_counter()
    end = run(solver, model, start, **how).cpu()
    row["seconds"] = time.perf_counter() - begun
    row["nfe"] = calls = model.nfe
    lost = int((~end.reshape(len(end), -1).isfinite().all(1)).sum())
    if lost:
        return {**row, "failed": f"{lost} of {len(end)} samples did not arrive"}
    if noisy:
        row |= law_errors(problem, sde, solver, end.double(), route, settings, folder)
    else:
        row["errors"] = pathwise(end.double(), exact.ends)
    if settings.repeats:
        row["cost"] = cost(solver, model, watch, start, how, settings.repeats, calls)
    return row


def walk_of(solver: Solver | Peer, sde: LinearSDE, **how: Any) -> Walk:
    """The walk of a method with fixed steps; ValueError for a budget that is too small, and for
    another library's sampler on a walk that climbs."""
    if isinstance(solver, Solver):
        return walk_for(solver, sde, **how)
    if how.get("nfe") is not None:
        how["steps"] = how.pop("nfe") // solver.calls(1)
        if how["steps"] < 1:
            raise ValueError(f"{solver} needs at least {solver.calls(1)} network calls.")
    walk = walk_for(DDIM(), sde, **how)
    if walk.climbs:
        raise ValueError(f"This walk climbs, which {solver.library}'s loops cannot follow.")
    return walk


def top(sde: LinearSDE) -> Level:
    """The level at T."""
    return sde(torch.tensor(sde.T, dtype=torch.float64))


def law_errors(
    problem: Problem,
    sde: LinearSDE,
    solver: Solver | Peer,
    end: Tensor,
    walk: Walk | None,
    settings: Settings,
    folder: Path,
) -> dict[str, Any]:
    """Distances and their floor; of our own solvers also the errors that need no samples, or but
    one Brownian path."""
    bottom, draws, seed = (
        sde(torch.tensor(sde.t_min, dtype=torch.float64)),
        settings.draws,
        settings.seed,
    )
    one, other = (problem.noised(bottom, draws, seed + k) for k in (101, 102))
    row: dict[str, Any] = {"errors": distances(end, one), "floor": distances(other, one)}
    if not isinstance(solver, Solver) or walk is None or walk.climbs:
        return row
    if isinstance(problem.exact, Gaussian):
        row["weak"] = weak(problem.exact, solver, sde, walk.times)
    if math.prod(problem.shape) <= SMALL:
        row["strong"] = strong(problem, solver, sde, walk.times, settings.n, seed, folder)
    return row


def weak(
    exact: Gaussian, solver: Solver, sde: LinearSDE, times: Tensor, eta: Eta | None = None
) -> dict[str, float]:
    """The largest errors of mean and, relative, variance along the Gaussian's axes: exactly."""
    mean, var, axes = exact.spectrum
    off, ratio = law(solver, sde, times, eta, (mean @ axes).tolist(), var.tolist())
    return {"mean": float(off.abs().max()), "variance": float(ratio.abs().max())}


def strong(
    problem: Problem,
    solver: Solver,
    sde: LinearSDE,
    times: Tensor,
    n: int,
    seed: int,
    folder: Path,
) -> dict[str, float]:
    """Path by path on one Brownian motion, whose increments no step size changes."""
    exact = strong_reference(problem, sde, solver.eta, n, seed, folder / "references")
    noise = Brownian(seed, sde.T)
    end = sample(problem.model(sde), exact.starts, solver=solver, walk=times, noise=noise)
    return {**pathwise(end, exact.ends), "agreement": exact.agreement}


def cost(
    solver: Solver | Peer,
    model: Denoiser,
    stop: Stopwatch,
    start: Tensor,
    how: Mapping[str, Any],
    repeats: int,
    calls: int,
) -> dict[str, float]:
    """Medians of seconds, in all and beside the network's; then kernels, reads and memory."""
    total, own = [], []
    device = start.device.type

    def clock() -> float:
        begun = time.perf_counter()
        run(solver, model, start, **how)  # type: ignore[arg-type]
        wait(device)
        return time.perf_counter() - begun

    for _ in range(repeats):
        stop.seconds = 0.0
        total.append(clock())
        own.append(total[-1] - stop.seconds)
        if device != "cpu":
            # There the network's share is known only if it is waited for, which takes time itself.
            stop.seconds, stop.device = 0.0, device
            own[-1] = clock() - stop.seconds
            stop.device = "cpu"
    with Watch(start.numel(), device) as watch:
        stop.watch = watch
        run(solver, model, start, **how)  # type: ignore[arg-type]
    stop.watch = Watch(0)
    return {
        "seconds": median(total),
        "fastest": min(total),
        "solver seconds": median(own),
        "kernels per call": watch.kernels / calls,
        "small kernels per call": watch.small / calls,
        "reads per call": watch.reads / calls,
        "states alive": watch.peak,
    }


# ---------------------------------------------------------------------------------------- files


def key_of(settings: Mapping[str, Any]) -> str:
    """The name of a point's file: what it depends on, hashed."""
    text = json.dumps({"version": VERSION, **settings}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@cache
def about(device: str = "cpu") -> dict[str, Any]:
    """What the numbers were made with; commit is that of the checkout, where there is one."""
    import sdegen

    on = f"{platform.machine()}, {torch.get_num_threads()} thread(s)"
    return {
        "sdegen": sdegen.__version__,
        "commit": commit(Path(sdegen.__file__).parent),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": on if device == "cpu" else torch.cuda.get_device_name(),
    }


def commit(folder: Path) -> str | None:
    """Of the checkout that the folder lies in; None if there is none, or no git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
