"""The tables of docs/benchmarks.md, from the published points: nothing is measured here.

    python benchmarks/findings.py                  reads benchmarks/points.csv.gz
    python benchmarks/findings.py outputs/bench    a folder of points

Errors are medians over the starts; means are geometric, over all problems with exact scores and
SDEs. A row of the second table is a method's error beside that of ``recommended``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sdegen.bench.results import Cell, Choice, Errors, load
from sdegen.report.standings import cells_of, fixed, freely, mean, pairs

POINTS = Path(__file__).with_name("points.csv.gz")


def standings(errors: Errors, cells: list[Cell]) -> None:
    """The best single choices, with hindsight and by budget."""
    for name, blind in (("with tuned solvers", False), ("without", True)):
        kept = {c: row for c, row in errors.items() if c.blind or not blind}
        both = pairs(kept, cells)
        late = [pair for pair in both if pair.late]
        print(
            f"hindsight, {name}: {mean(p.ratio for p in both):.2f} of theirs in {len(both)}, "
            f"behind in {len(late)}"
        )
    ranking = fixed(errors, cells)
    for title, ours in (("sdegen", True), ("others", False)):
        for each in [f for f in ranking if f.choice.ours == ours][:4]:
            print(f"one choice, {title}: {each.choice} {each.ratio:.2f}")
    own = next((f for f in ranking if not f.choice.ours and f.choice.walk != "focused"), None)
    print(f"one choice, others, on walks of their own: {own and own.choice} {own and own.ratio}")
    print(f"others, choosing anew at each budget: {freely(errors, cells, False)}")
    print("\ncalls  recommended  best single of ours  best single of theirs  ratio of the first")
    for nfe in sorted({c.nfe for c in cells}):
        part = fixed(errors, [c for c in cells if c.nfe == nfe])
        rule = next(f for f in part if f.choice.solver == "recommended")
        mine, theirs = (next(f for f in part if f.choice.ours == who) for who in (True, False))
        print(
            f"{nfe:5d}  {rule.ratio:.2f}  {mine.choice} {mine.ratio:.2f}  {theirs.choice} "
            f"{theirs.ratio:.2f}  {rule.ratio / theirs.ratio:.2f}"
        )


def beside(errors: Errors, cells: list[Cell]) -> None:
    """Every method's error beside the recommended one's, by budget; "-" where it has holes."""
    rule = errors[next(c for c in errors if c.solver == "recommended")]
    budgets = sorted({c.nfe for c in cells})
    rows: list[tuple[float, str]] = []
    for choice, row in errors.items():
        ratios = []
        for nfe in budgets:
            part = [c for c in cells if c.nfe == nfe]
            whole = all(c in row for c in part)
            ratios.append(mean(row[c] / rule[c] for c in part) if whole else None)
        known = [r for r in ratios if r is not None]
        if known:
            told = "".join(f"{r:8.2g}" if r is not None else "       -" for r in ratios)
            rows.append((mean(known), f"{name(choice):44s}{told}"))
    print(f"\n{'beside recommended, at calls':44s}" + "".join(f"{nfe:8d}" for nfe in budgets))
    for _, line in sorted(rows):
        print(line)


def name(choice: Choice) -> str:
    """A method in the table."""
    return f"{choice} ({choice.library})" if not choice.ours else str(choice)


def main() -> None:
    """Read and print."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else POINTS
    errors = load(folder).errors()
    cells = [c for c in cells_of(errors) if c.problem != "run"]
    standings(errors, cells)
    beside(errors, cells)


if __name__ == "__main__":
    main()
