"""Solvers that are fitted to one model: ``tune`` beside S4S-Alt's and EPD-Solver's recipes.

    OMP_NUM_THREADS=1 python benchmarks/fitted_rivals.py          writes fitted_rivals.json
    python benchmarks/fitted_rivals.py --quick --out /tmp/x.json  in seconds

On a mixture in the plane with its exact score, from the same starts, to the same fine solution and
by the same optimiser, at as many iterations; the median error on fresh starts is recorded.

tune:     walk and weights at once, from the two best untuned solvers (sdegen.tuning).
S4S-Alt:  Frankel et al. (2025), alg. 2: weights and walk in turn, from a published multistep
          solver on equal steps of lam. Their distance is LPIPS, and starts may move a little; here
          it is the root mean square, and they do not.
EPD:      Zhu et al. (2025): a step asks the network where it is, and then at two points within the
          step at once, whose places, weights, scale and shifts of time are learned, on EDM's grid.
          A round is what is asked at once: a step has two rounds and three evaluations.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import exact_model
from sdegen.exact.orders import mixture
from sdegen.files import write_json
from sdegen.tuning.fitting import Learner
from sdegen.tuning.probes import errors, reference, starts
from sdegen.walks import karras, log_snr

SDES = {"VP": sg.VPSDE()}
BUDGETS = (4, 8)
TURNS = 4
INSIDE = 2
Run = Callable[[Tensor], Tensor]


class Parallel:
    """EPD-Solver's steps in y = x / alpha, rho = sigma / alpha:  dy / drho = eps."""

    def __init__(self, model: Any, steps: int) -> None:
        self.model, self.rho = model, model.sde(karras(model.sde, steps)).rho
        shape = steps, INSIDE
        first = torch.linspace(-1, 1, INSIDE, dtype=torch.float64).expand(shape)
        self.places = first.clone().requires_grad_()
        self.weights, self.shifts = (
            torch.zeros(shape, dtype=torch.float64, requires_grad=True) for _ in range(2)
        )
        self.scales = torch.zeros(steps, dtype=torch.float64, requires_grad=True)
        self.parameters = [self.places, self.weights, self.shifts, self.scales]

    def eps(self, y: Tensor, rho: Tensor) -> Tensor:
        """At y (b, *), where the network is told rho."""
        sde = self.model.sde
        level = sde(sde.time(-rho.log()).clamp(sde.t_min, sde.T))
        found: Tensor = self.model(level.alpha * y, level).eps
        return found

    def __call__(self, x: Tensor) -> Tensor:
        """Samples from starts."""
        sde = self.model.sde
        y = x / sde(sde.T).alpha
        for i, (t, s) in enumerate(pairwise(self.rho)):
            here, change = self.eps(y, t), torch.zeros_like(y)
            for place, weight, shift in zip(
                self.places[i].sigmoid(), self.weights[i].softmax(0), self.shifts[i], strict=True
            ):
                between = t ** (1 - place) * s**place
                inside = self.eps(y + (between - t) * here, between * shift.exp())
                change = change + weight * inside
            y = y + (s - t) * (1 + self.scales[i]) * change
        return y * sde(sde.t_min).alpha


def fitted(
    run: Run,
    stages: Sequence[tuple[Sequence[Tensor], int]],
    x: tuple[Tensor, Tensor, Tensor],
    exact: tuple[Tensor, Tensor, Tensor],
) -> float:
    """The median error on fresh starts of what was best on held-out ones, L-BFGS on each stage's
    parameters for its iterations."""

    def loss(known: Sequence[Tensor]) -> Tensor:
        off = (run(x[0]) - exact[0]).square().flatten(1).mean(1)
        value = (off + 1e-24).sqrt().mean()
        slopes = torch.autograd.grad(value, list(known))
        sound = all(bool(slope.isfinite().all()) for slope in slopes) and bool(value.isfinite())
        for each, slope in zip(known, slopes, strict=True):
            each.grad = slope if sound else torch.zeros_like(slope)
        return value.detach() if sound else torch.tensor(1e30)

    def median(part: int) -> float:
        with torch.no_grad():
            found = float(errors(run(x[part]), exact[part]).median())
        return found if math.isfinite(found) else math.inf

    best, kept = median(1), median(2)
    for known, iterations in stages:
        lbfgs = torch.optim.LBFGS(
            list(known), max_iter=10, history_size=30, line_search_fn="strong_wolfe"
        )
        for _ in range(iterations // 10):
            lbfgs.step(partial(loss, known))  # type: ignore[arg-type]
            if (found := median(1)) < best:
                best, kept = found, median(2)
    return kept


def beside(sde: sg.LinearSDE, nfe: int, seeds: int, iterations: int) -> dict[str, Any]:
    """Median errors on fresh starts at so many rounds, and at EPD's evaluations."""
    model = exact_model(mixture(), sde)
    x = tuple(starts(model, (2,), seeds, 0, k * seeds) for k in range(3))
    exact = tuple(reference(model, part, 100) for part in x)
    how: dict[str, Any] = {"seeds": seeds, "iterations": iterations, "fine": 100}

    def tuned(calls: int) -> float:
        found = sg.tune(model, nfe=calls, shape=(2,), coefficients=True, **how)
        return float(errors(sg.sample(model, x[2], solver=found), exact[2]).median())

    learner = Learner(model, sg.DPMSolverPP(2), log_snr(sde, nfe), coefficients=True)
    turns = [([each], iterations // TURNS) for each in reversed(learner.parameters)] * TURNS
    epd, rounds = Parallel(model, nfe // 2), iterations * 2
    said = {
        "tune": tuned(nfe),
        "S4S-Alt": fitted(partial(learner.run, model), turns, x, exact),  # type: ignore[arg-type]
        "EPD, so many rounds": fitted(epd, [(epd.parameters, rounds)], x, exact),  # type: ignore[arg-type]
        "tune, at EPD's evaluations": tuned(nfe // 2 * (1 + INSIDE)),
    }
    return {name: float(f"{value:.3g}") for name, value in said.items()}


def main() -> None:
    """Fit all, print a line each, and write the JSON."""
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parse.parse_args()
    seeds, iterations = (140, 20) if args.quick else (456, 80)
    record: dict[str, Any] = {
        "what": f"median error of {seeds} fresh starts; {2 * iterations} iterations of each",
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rows": [],
    }
    for name, sde in SDES.items():
        for nfe in BUDGETS[: 1 if args.quick else None]:
            begun = time.process_time()
            found = {"sde": name, "rounds": nfe, **beside(sde, nfe, seeds, iterations)}
            found["seconds"] = round(time.process_time() - begun)
            record["rows"].append(found)
            print(found, flush=True)
            write_json(args.out, record)


if __name__ == "__main__":
    main()
