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
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from sdegen.analytic import Gaussian
from sdegen.bench.errors import distances, pathwise
from sdegen.bench.peers import Peer
from sdegen.bench.problems import Problem
from sdegen.bench.reference import reference, strong_reference
from sdegen.bench.tuned import Recommended, TunedHere
from sdegen.bench.watch import Stopwatch, Watch, wait
from sdegen.brownian import Brownian
from sdegen.march import plan, sample
from sdegen.orders import law
from sdegen.reverse import Eta
from sdegen.score import ScoreModel, one_of
from sdegen.sde import LinearSDE
from sdegen.solvers import DDIM
from sdegen.solvers.backends import SciPy, TorchDiffEq, TorchSDE
from sdegen.solvers.solver import Solver

VERSION = 1
"""Of the JSON files; a report refuses those of another."""
FAR = 1_000_003
"""Added to the seed of the noise other libraries draw: none of the starts' seeds."""
SMALL = 16
"""Values of a sample up to which strong errors are measured: a Brownian path is slow."""
BACKENDS = {TorchDiffEq: "torchdiffeq", TorchSDE: "torchsde", SciPy: "SciPy"}


Method = Solver | Peer | TunedHere | Recommended


def library_of(solver: Method) -> str:
    """Whose the method is."""
    if isinstance(solver, Peer):
        return solver.library
    return next((name for cls, name in BACKENDS.items() if isinstance(solver, cls)), "sdegen")


def run(
    solver: Solver | Peer,
    model: ScoreModel,
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
    if solver.adaptive != (tol is not None):
        takes = "a tolerance, tol" if solver.adaptive else "a budget, nfe or steps, and no tol"
        raise ValueError(f"{solver} takes {takes}.")
    if isinstance(solver, Peer):
        if solver.adaptive:
            steps, nfe = 1, None
        if nfe is not None:
            steps, nfe = nfe // solver.calls(1), None
            if steps < 1:
                raise ValueError(f"{solver} needs at least {solver.calls(1)} network calls.")
        times = plan(model.sde, DDIM(), steps, None, walk)
        with torch.random.fork_rng(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.manual_seed(FAR + seed)
            return solver.solve(model, x, times, tol)
    if solver.adaptive:
        solver = replace(solver, rtol=tol, atol=tol)  # type: ignore[type-var]
        nfe = steps = walk = None
    return sample(model, x, solver=solver, nfe=nfe, steps=steps, walk=walk, seed=seed)


def measure(
    problem: Problem,
    sde: LinearSDE,
    solver: Method,
    *,
    folder: Path,
    walk: Any = None,
    nfe: int | None = None,
    steps: int | None = None,
    tol: float | None = None,
    n: int = 48,
    draws: int = 2048,
    seed: int = 0,
    dtype: str = "float64",
    device: str = "cpu",
    repeats: int = 0,
) -> dict[str, Any]:
    """Errors first; then, where ``repeats`` asks for it, what it costs.  References and exact
    draws are made on the CPU, whatever the device.

    A solver of the flow is held against the reference from n common starts, path by path; one that
    adds noise against exact draws of x at t_min, in distribution, with the floor that two sets of
    exact draws have.
    """
    if isinstance(solver, TunedHere | Recommended):
        if nfe is None:
            raise ValueError(f"{solver} is for a number of network calls: give nfe.")
        solver, walk = solver.choose(problem, sde, nfe)
    noisy = solver.eta != 0
    watch = Stopwatch(None)

    def wrapped(net: Any) -> Stopwatch:
        watch.net = net
        return watch

    model = problem.model(sde, wrapped)
    top, bottom = (sde(torch.tensor(t, dtype=torch.float64)) for t in (sde.T, sde.t_min))
    precision = one_of(dtype, "dtype", {"float64": torch.float64, "float32": torch.float32})
    if isinstance(solver, Peer) and dtype != "float64":
        raise ValueError(f"Other libraries run in float64, but dtype = {dtype!r}.")
    row: dict[str, Any] = {"kind": "law" if noisy else "path"}
    if noisy:
        start = problem.noised(top, draws, seed)
    else:
        exact = reference(problem, sde, n, seed, folder / "references")
        start, row["agreement"] = exact.starts, exact.agreement
    start = start.to(usable(device), precision)
    how: dict[str, Any] = {"walk": walk, "nfe": nfe, "steps": steps, "tol": tol, "seed": seed}
    begun = time.perf_counter()
    end = run(solver, model, start, **how)
    end = end.cpu()
    row["seconds"] = time.perf_counter() - begun
    row["nfe"] = calls = model.nfe
    lost = int((~end.reshape(len(end), -1).isfinite().all(1)).sum())
    if lost:
        return {**row, "failed": f"{lost} of {len(end)} samples did not arrive"}
    if noisy:
        one, other = (problem.noised(bottom, draws, seed + k) for k in (101, 102))
        row["errors"], row["floor"] = distances(end.double(), one), distances(other, one)
    else:
        row["errors"] = pathwise(end.double(), exact.ends)
    if noisy and isinstance(solver, Solver) and not solver.adaptive:
        times = plan(sde, solver, steps, nfe, walk)
        if isinstance(problem.exact, Gaussian):
            row["weak"] = weak(problem.exact, solver, sde, times)
        if math.prod(problem.shape) <= SMALL:
            row["strong"] = strong(problem, solver, sde, times, n, seed, folder)
    if repeats:
        row["cost"] = cost(solver, model, watch, start, how, repeats, calls)
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
    model: ScoreModel,
    stop: Stopwatch,
    start: Tensor,
    how: Mapping[str, Any],
    repeats: int,
    calls: int,
) -> dict[str, float]:
    """Medians of seconds, in all and beside the network's; then kernels, reads and memory."""
    whole, own = [], []
    device = start.device.type

    def clock() -> float:
        begun = time.perf_counter()
        run(solver, model, start, **how)  # type: ignore[arg-type]
        wait(device)
        return time.perf_counter() - begun

    for _ in range(repeats):
        wait(device)
        whole.append(clock())
        # On a GPU the network's share is known only if it is waited for, which costs time itself.
        stop.seconds, stop.device = 0.0, device
        taken = clock() if device != "cpu" else whole[-1]
        own.append(taken - stop.seconds)
        stop.device = "cpu"
    with Watch(start.numel(), device) as watch:
        stop.watch = watch
        run(solver, model, start, **how)  # type: ignore[arg-type]
    stop.watch = Watch(0)
    return {
        "seconds": median(whole),
        "fastest": min(whole),
        "solver seconds": median(own),
        "kernels per call": watch.kernels / calls,
        "small kernels per call": watch.small / calls,
        "reads per call": watch.reads / calls,
        "states alive": watch.peak,
    }


# ---------------------------------------------------------------------------------------- files


def usable(device: str) -> str:
    """The device, if there is one."""
    found = one_of(device, "device", {"cpu": True, "cuda": torch.cuda.is_available()})
    if not found:
        raise ValueError("device=cuda, but torch sees no CUDA device: use device=cpu.")
    return device


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
