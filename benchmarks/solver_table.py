"""The table of solvers in docs/solvers.md: what each claims, what was measured, what it needs.

    python benchmarks/solver_table.py

Every solver of ``sdegen.solvers.catalogue`` is found by looking; nothing is written by hand.
"""

from __future__ import annotations

import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

import sdegen as sg
from sdegen.exact import orders
from sdegen.exact.distributions import exact_model
from sdegen.solvers.adaptive import Adaptive
from sdegen.solvers.registry import Entry

PAGE = Path(__file__).parent.parent / "docs" / "solvers.md"
SDES = {
    "VP": sg.VPSDE(),
    "sub-VP": sg.SubVPSDE(),
    "VE": sg.VESDE(),
    "cosine": sg.CosineSDE(),
    "EDM": sg.EDMSDE(),
    "flow": sg.FlowSDE(),
}
HEAD = """# Solvers

Every solver there is, by the name it has in configurations (`solver=unipc`) and in
`sg.solvers.catalogue()`. This page is made by `python benchmarks/solver_table.py`.

- **flow**: order of the path at eta = 0, claimed and measured: the lowest and highest slope over
  VP, sub-VP, VE, cosine, EDM and flow, on a mixture with exact score, 128 to 256 equal steps of
  lam (64 to 128 where the order is 5). Of an adaptive solver it is its own step that is measured
  so, without control; where the steps are another library's, the error and the calls on VP.
- **weak**: order of the law at the solver's own eta, or eta = 1, on Gaussian data, measured
  exactly on VP, 128 to 256 steps.
- **strong**: order of the path there, against 512 steps on the same Brownian path, on VP, 64 to
  128 steps; the median of 48 samples.
- **calls**: network calls per step; of n steps where it is not a multiple.
- **needs**: "any SDE" for drift and diffusion alone, "alpha, sigma" for a `LinearSDE`, "a path"
  where rejected steps ask for their noise again.

Slopes above the claim are common where an error happens to vanish on the problem measured. Those
of high-order multistep methods below it, on VE above all, are the first steps', which have fewer
values than the order asks for: see [design](design.md).

`Split(inner, order)` is not in this table, as it takes guided models alone: their base by inner,
their guidance in between, Lie and Trotter's or Strang's ([conditions](guidance.md)). Its order is
1, and 2 for `Split(DPMSolverPPSinglestep(2), 2)`, whose inner method remembers nothing
(tests/solvers/test_splitting.py).

`Blended(order, corrector)`, `solver="blended"` for a budget, is not in this table either: its
weights depend on the states, and where the errors of its two predictions cancel its slopes lie
above the order of both, which is the corrector's (tests/solvers/test_blended.py). It solves the
flow, eta = 0, alone.

`QuasiTaylor(p)` (Tachibana et al. 2021) is not in this table either: derivatives of the flow as if
all data were one point make it DDIM's Taylor polynomial in the step, off from DDIM by O(h^(p + 1))
a step, of order 1 for any p, and with nothing gained (tests/solvers/test_quasi_taylor.py).

`STORK(published=True)` is not in this table: with the places that the authors' code gives its
stages the order is 1, 1.0 to 1.2 at 64 to 128 steps (tests/solvers/test_stabilised.py).
"""


def flow(entry: Entry) -> tuple[str, str]:
    """Claimed and measured order on the flow."""
    solver = entry.build()
    if not (solver.traits.any_eta or solver.eta == 0) or not solver.traits.order:
        return "", ""
    steps = (128, 256) if solver.traits.order < 5 else (64, 128)
    if isinstance(solver, Adaptive):
        slopes = [orders.attempt_order(solver, sde, steps) for sde in SDES.values()]
    elif solver.traits.adaptive:
        return f"{solver.traits.order:g}", arrival(solver)
    else:
        slopes = [orders.flow_order(solver, sde, steps) for sde in SDES.values()]
    return f"{solver.traits.order:g}", f"{min(slopes):.2f} to {max(slopes):.2f}"


def arrival(solver: sg.Solver) -> str:
    """The error of a solver whose steps are another library's, and its network calls, on VP."""
    sde = SDES["VP"]
    model, x = exact_model(orders.mixture(), sde), orders.starts(sde, 16)
    exact = sg.sample(model, x, solver=sg.solvers.RK5("lam"), steps=1024)
    out = sg.solve(model, x, solver=solver)
    return f"error {orders.rms(out.x - exact):.0e} in {int(out.nfe.max())} calls"


def stochastic(entry: Entry) -> tuple[str, str]:
    """Weak and strong order, claimed and measured."""
    solver = entry.build()
    if (
        solver.traits.adaptive
        or not solver.traits.weak
        or not (solver.traits.any_eta or solver.eta != 0)
    ):
        return "", ""
    eta = solver.eta if solver.eta != 0 else 1.0
    sde = sg.VPSDE()
    weak = orders.weak_order(solver, sde, eta)
    strong = orders.strong_order(solver, sg.VPSDE(t_min=0.05), eta)
    return f"{solver.traits.weak:g}: {weak:.2f}", f"{solver.traits.strong:g}: {strong:.2f}"


def calls(solver: sg.Solver) -> str:
    """Network calls per step."""
    if solver.traits.adaptive:
        return "as needed"
    each = solver.calls(2) - solver.calls(1)
    extra = solver.calls(1) - each
    return f"{each}" if not extra else f"{each} n + {extra}"


def needs(solver: sg.Solver) -> str:
    """Of the SDE and the noise."""
    return ("alpha, sigma" if solver.traits.needs_marginals else "any SDE") + (
        ", a path" if solver.traits.needs_path else ""
    )


def row(entry: Entry) -> str:
    """One line of the table."""
    solver = entry.build()
    (claimed, measured), (weak, strong) = flow(entry), stochastic(entry)
    order = f"{claimed}: {measured}" if claimed else ""
    settings = ", ".join(f"{k}={v!r}" for k, v in entry.settings.items())
    cells = [
        f"`{entry.name}`",
        f"`{entry.cls.__name__}({settings})`",
        order,
        weak,
        strong,
        calls(solver),
        needs(solver),
        entry.source,
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure every solver and write the page."""
    columns = ["name", "is", "flow", "weak", "strong", "calls", "needs", "published as"]
    lines = [HEAD, "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    with ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for line in pool.map(row, sg.solvers.catalogue().values()):
            lines.append(line)
            print(line, flush=True)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, float64, CPU"
    lines += ["", f"Measured with {versions}.", ""]
    PAGE.write_text("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
