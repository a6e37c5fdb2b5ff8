"""The table of solvers in docs/solvers.md: what each claims, what was measured, what it needs.

    python benchmarks/solver_table.py

Every solver of ``sdegen.catalogue`` is found by looking; nothing is written by hand.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import replace
from pathlib import Path

import torch

import sdegen as sg
from sdegen import orders
from sdegen.catalogue import Entry

PAGE = Path(__file__).parent.parent / "docs" / "solvers.md"
SDES = {
    "VP": sg.VPSDE(),
    "sub-VP": sg.SubVPSDE(),
    "VE": sg.VESDE(),
    "cosine": sg.Cosine(),
    "EDM": sg.EDM(),
    "flow": sg.Flow(),
}
HEAD = """# Solvers

Every solver there is, by the name it has in configurations (`solver=unipc`) and in
`sg.catalogue()`. This page is made by `python benchmarks/solver_table.py`.

- **flow**: order of the path at eta = 0, claimed and measured: the lowest and highest slope over
  VP, sub-VP, VE, cosine, EDM and flow, on a mixture with exact score, 128 to 256 equal steps of
  lam (32 to 64 where the order is 5). An adaptive solver: error against network calls on VP, at
  tolerances 1e-4 and 1e-6 (1e-2 and 1e-4 for those of low order).
- **weak**: order of the law at the solver's own eta, or eta = 1, on Gaussian data, measured
  exactly on VP, 128 to 256 steps.
- **strong**: order of the path there, against 512 steps on the same Brownian path, on VP, 32 to
  64 steps.
- **calls**: network calls per step; of n steps where it is not a multiple.
- **needs**: "any SDE" for drift and diffusion alone, "alpha, sigma" for a `LinearSDE`, "a path"
  where rejected steps ask for their noise again.

Slopes above the claim are common where an error happens to vanish on the problem measured. Those
of high-order multistep methods below it, on VE above all, are the first steps', which have fewer
values than the order asks for: see [design](design.md).
"""


def flow(entry: Entry) -> tuple[str, str]:
    """Claimed and measured order on the flow."""
    solver = entry.build()
    if not (solver.any_eta or solver.eta == 0) or not solver.flow:
        return "", ""
    if solver.adaptive:
        if not hasattr(solver, "rtol") or solver.eta != 0:
            return f"{solver.flow:g}", "tolerance"
        tolerances = (1e-4, 1e-6) if solver.flow > 3 else (1e-2, 1e-4)
        pair = [replace(solver, rtol=tol, atol=tol) for tol in tolerances]
        return f"{solver.flow:g}", f"{orders.tolerance_order(pair, SDES['VP']):.2f}"
    steps = (128, 256) if solver.flow < 5 else (32, 64)
    slopes = [orders.flow_order(solver, sde, steps) for sde in SDES.values()]
    return f"{solver.flow:g}", f"{min(slopes):.2f} to {max(slopes):.2f}"


def stochastic(entry: Entry) -> tuple[str, str]:
    """Weak and strong order, claimed and measured."""
    solver = entry.build()
    if solver.adaptive or not solver.weak or not (solver.any_eta or solver.eta != 0):
        return "", ""
    eta = solver.eta if solver.eta != 0 else 1.0
    sde = sg.VPSDE()
    weak = orders.weak_order(solver, sde, eta)
    strong = orders.strong_order(solver, sg.VPSDE(t_min=0.05), eta, steps=(32, 64))
    return f"{solver.weak:g}: {weak:.2f}", f"{solver.strong:g}: {strong:.2f}"


def calls(solver: sg.Solver) -> str:
    """Network calls per step."""
    if solver.adaptive:
        return "as needed"
    each = solver.calls(2) - solver.calls(1)
    extra = solver.calls(1) - each
    return f"{each}" if not extra else f"{each} n + {extra}"


def needs(solver: sg.Solver) -> str:
    """Of the SDE and the noise."""
    return ("alpha, sigma" if solver.marginals else "any SDE") + (
        ", a path" if solver.path else ""
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
    for entry in sg.catalogue().values():
        lines.append(row(entry))
        print(lines[-1], flush=True)
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, float64, CPU"
    lines += ["", f"Measured with {versions}.", ""]
    PAGE.write_text("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
