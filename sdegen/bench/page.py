"""The report: one self-contained HTML page, readable on a phone and on paper."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import sdegen.solvers as our
from sdegen.bench import figures
from sdegen.bench.markup import STYLE, number, table
from sdegen.bench.results import (
    Cell,
    Choice,
    Results,
    best,
    cells_of,
    choice_of,
    fixed,
)
from sdegen.grids import focused

TIE = 1.001
"""Methods that are the same formula differ in the last digits."""
LOOK: Any = {"backend": "svg", "font.size": 8.5, "axes.titlesize": 10, "axes.labelsize": 8.5}
SHOWN = {
    "DDIM": (our.DDIM(), "log_snr"),
    "DPM-Solver++(2M)": (our.DPMSolverPP(2), "log_snr"),
    "Multistep(4, 4), wide": (our.Multistep(4, 4, clock="wide"), focused),
}
"""Whose paths are drawn: solver and walk."""
DIGITS = {
    "DDIM": (our.DDIM(), "log_snr"),
    "Heun": (our.Heun("rho"), "karras"),
    "DPM-Solver++(2M)": (our.DPMSolverPP(2), "log_snr"),
    "UniPC-3": (our.UniPC(3), "log_snr"),
    "Multistep(4, 4), wide": (our.Multistep(4, 4, clock="wide"), focused),
    "the same, Euler at the end": (
        our.Multistep(4, 4, clock="wide", euler_at_final=True),
        focused,
    ),
    "DDPM": (our.Ancestral(), "log_snr"),
    "Euler-Maruyama": (our.EulerMaruyama(), "log_snr"),
}
"""Whose digits are shown."""
LINES = {
    "DDIM": our.DDIM(),
    "Heun": our.Heun(),
    "DPM-Solver++(2M)": our.DPMSolverPP(2),
    "DPM-Solver++(3M), as published": our.DPMSolverPP(3, published=True),
    "DPM-Solver++(3M), exact": our.DPMSolverPP(3),
    "UniPC-3": our.UniPC(3),
    "Multistep(3, corrector 4)": our.Multistep(3, 4),
    "Multistep(4, corrector 5)": our.Multistep(4, 5),
}
"""Whose orders are drawn."""


def write_page(
    results: Results, costs: Results | None, out: Path, default: str | None, run: str | None
) -> Path:
    """The page of all that the points say, and those with costs, written to ``out``.

    ValueError for an unknown default.
    """
    import matplotlib

    from sdegen.training.files import write_text

    errors = results.errors()
    cells = cells_of(errors)
    ranking = fixed(errors, cells)
    chosen = pick(errors, ranking, default)
    with matplotlib.rc_context(LOOK):
        parts = [
            head(results),
            summary(errors, cells, ranking, chosen),
            ranking_table(errors, cells, chosen),
            advice(results, errors, cells),
            *(problem_part(results, errors, name, chosen) for name in names(cells)),
            order_part(),
            law_part(results),
            cost_part(costs) if costs else "",
            pictures(Path(run) if run else None),
            holes(results),
        ]
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>sdegen: work and precision</title><style>{STYLE}</style></head><body>"
        f"{''.join(parts)}</body></html>\n"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    return out


def pick(errors: Any, ranking: Sequence[Any], default: str | None) -> Choice | None:
    """The choice to hold against all: the one named, or the best of ours."""
    if default is None:
        return next((f.choice for f in ranking if f.choice.ours), None)
    known = {str(choice).replace(" ", ""): choice for choice in errors}
    if default.replace(" ", "") not in known:
        raise ValueError(
            f"default names a solver and a walk that ran, as 'unipc/log_snr', but it is "
            f"{default!r}."
        )
    return known[default.replace(" ", "")]


def names(cells: Iterable[Cell]) -> list[str]:
    """The problems, in order."""
    return list(dict.fromkeys(cell.problem for cell in cells))


def head(results: Results) -> str:
    """What this is and what it was made with."""
    about = sorted({" · ".join(f"{k} {v}" for k, v in p["about"].items()) for p in results.points})
    return (
        "<h1>Work and precision of diffusion solvers</h1>"
        "<p>Every solver starts from the same states and is held against the exact end of the "
        "probability flow, found by two independent integrators; errors are root mean squares per "
        "coordinate of a sample, their median over the samples. Work is network calls. Other "
        "libraries run on the same model, states and times, in float64.</p>"
        f'<p class="note">{len(results.points)} points. {"; ".join(map(html.escape, about))}. '
        f"Libraries beside sdegen: {', '.join(results.libraries()) or 'none'}.</p>"
    )


def summary(
    errors: Any, cells: Sequence[Cell], ranking: Sequence[Any], chosen: Choice | None
) -> str:
    """The two questions: is the best of ours the best, and what is the price of one choice."""
    every, blind = (
        behind({c: row for c, row in errors.items() if blind <= c.blind}, cells)
        for blind in (False, True)
    )
    if every is None or blind is None:
        return "<p>No other library has points at a number of network calls.</p>"
    text = (
        f"<p><b>With hindsight</b>, at {every[0]} combinations of problem, SDE and budget, the "
        f"best of sdegen has {number(every[1])} times the error of the best of the others "
        f"(geometric mean), and is behind in {every[2]}{every[3]}. Without solvers that were "
        f"tuned to the problem: {number(blind[1])} times, behind in {blind[2]}.</p>"
    )
    mine = next((f for f in ranking if f.choice == chosen), None)
    others = [f for f in ranking if not f.choice.ours]
    if mine is None or not others:
        return text

    def told(other: Any) -> str:
        who = (
            f"<code>{html.escape(str(other.choice))}</code> ({html.escape(other.choice.library)})"
        )
        part = number(mine.ratio / other.ratio)
        return f"{who} with {number(other.ratio)}, of which ours has {part}"

    text += (
        f"<p><b>One choice for everything</b>: <code>{html.escape(str(mine.choice))}</code> has "
        f"{number(mine.ratio)} times the error of the best with hindsight. Of the others the best "
        f"single choice is {told(others[0])}."
    )
    own = next((f for f in others if f.choice.walk != "focused"), None)
    if own is not None and own != others[0]:
        text += f" On walks that they have themselves it is {told(own)}."
    return text + "</p>"


def behind(errors: Any, cells: Sequence[Cell]) -> tuple[int, float, int, str] | None:
    """Cells in which both sides have points, the mean ratio, and those where ours is larger."""
    pairs = [(best(errors, c, True), best(errors, c, False), c) for c in cells]
    both = [(mine.error / other.error, c) for mine, other, c in pairs if mine and other]
    if not both:
        return None
    late = sorted(((r, c) for r, c in both if r > TIE), reverse=True)
    where = [f"{c.problem} {c.sde} {c.nfe} ({r:.2f})" for r, c in late]
    listed = f": {'; '.join(where[:24])}{'; ...' if len(where) > 24 else ''}" if where else ""
    mean = math.exp(sum(math.log(r) for r, _ in both) / len(both))
    return len(both), mean, len(late), html.escape(listed)


def ranking_table(errors: Any, cells: Sequence[Cell], chosen: Choice | None) -> str:
    """Single choices, over all cells and by budget."""
    spans = {"5-10": (0, 10), "11-20": (11, 20), "21-50": (21, 50), "51-100": (51, 100)}
    columns = {"all": list(cells)}
    columns |= {
        name: [c for c in cells if low <= c.nfe <= high] for name, (low, high) in spans.items()
    }
    columns = {name: part for name, part in columns.items() if part}
    ratios = {
        name: {f.choice: f.ratio for f in fixed(errors, part)} for name, part in columns.items()
    }
    order = [f.choice for f in fixed(errors, cells)]
    others = [c for c in order if not c.ours][:8]
    shown = [c for c in order if c in order[:14] or c in others or c == chosen]
    rows = [
        [html.escape(str(c)) + (" *" if c == chosen else ""), c.library]
        + [number(ratios[name][c]) if c in ratios[name] else "-" for name in columns]
        for c in shown
    ]
    return (
        "<h2>One choice for everything</h2><p>Each method with one walk, taken before the problem "
        "is seen: geometric mean of its error beside the best of all methods in each "
        "combination. * is drawn in red below.</p>"
        + table(rows, ["solver / walk", "library", *columns], [c.ours for c in shown])
    )


def advice(results: Results, errors: Any, cells: Sequence[Cell]) -> str:
    """Of sdegen's, the choice that is best over all problems, for each SDE and budget."""
    ours = {choice: row for choice, row in errors.items() if choice.ours}
    others = {choice: row for choice, row in errors.items() if not choice.ours}
    rows = []
    for sde in [*dict.fromkeys(c.sde for c in cells), None]:
        row = ["all" if sde is None else sde]
        for nfe in results.budgets:
            part = [c for c in cells if c.nfe == nfe and sde in (None, c.sde)]
            mine, theirs = single(errors, ours, part), single(errors, others, part)
            text = "-" if mine is None else html.escape(str(mine.choice))
            if mine and theirs:
                text += f"<br><small>{number(mine.ratio / theirs.ratio)}</small>"
            row.append(text)
        rows.append(row)
    return (
        "<h2>What to take</h2><p>The one choice of sdegen that is best over all problems at a "
        "number of network calls, tuned solvers apart; below it, its error beside that of the "
        "other libraries' best single choice.</p>"
        + table(rows, ["SDE", *map(str, results.budgets)], words=True)
    )


def single(errors: Any, among: Any, cells: Sequence[Cell]) -> Any:
    """The best single choice among some, measured by the best of all; tuned ones apart."""
    ranked = fixed(errors, cells)
    return next((f for f in ranked if f.choice in among), None)


def problem_part(results: Results, errors: Any, problem: str, chosen: Choice | None) -> str:
    """Curves, and who is best at each budget."""
    sdes = list(dict.fromkeys(c.sde for c in cells_of(errors) if c.problem == problem))
    budgets = results.budgets
    figure = figures.work_precision(errors, problem, sdes, budgets, chosen)
    rows = []
    for sde in sdes:
        for ours in (True, False):
            row = [f"{sde}, {'sdegen' if ours else 'others'}"]
            for nfe in budgets:
                found = best(errors, Cell(problem, sde, nfe), ours)
                rival = best(errors, Cell(problem, sde, nfe), not ours)
                if found is None:
                    row.append("-")
                    continue
                late = ours and rival is not None and found.error > TIE * rival.error
                cell = (
                    f'<span title="{html.escape(str(found.choice))}">{number(found.error)}</span>'
                )
                row.append(("!!!" if late else "") + cell)
            rows.append(row)
    winners = table(
        winner_rows(errors, problem, sdes, budgets), ["SDE", *map(str, budgets)], words=True
    )
    agreement = max(
        (p["agreement"] for p in results.of("path") if p["settings"]["problem"] == problem),
        default=math.nan,
    )
    return (
        f"<h2>{html.escape(problem)}</h2><figure>{figure}<figcaption>Thin lines: every sdegen "
        "solver and walk in blue, the others in grey. The reference's two integrators agree to "
        f"{agreement:.0e}.</figcaption></figure>"
        + table(rows, ["median error at", *map(str, budgets)])
        + f"<details><summary>Which solver it was</summary>{winners}</details>"
    )


def winner_rows(
    errors: Any, problem: str, sdes: Sequence[str], budgets: Sequence[int]
) -> list[list[str]]:
    """The best method's name at each budget."""
    rows = []
    for sde in sdes:
        row = [sde]
        for nfe in budgets:
            found = best(errors, Cell(problem, sde, nfe))
            row.append(html.escape(str(found.choice)) if found else "-")
        rows.append(row)
    return rows


def order_part() -> str:
    """How fast the error falls."""
    drawn = figures.orders(LINES)
    return (
        "<h2>Orders</h2><p>Error on the flow of a mixture over the number of equal steps in lam, "
        "VP; dashed lines fall as the first, second, third and fourth power. The slopes of all "
        "solvers on all SDEs are in docs/solvers.md.</p>"
        f"<figure>{drawn}<figcaption>DPM-Solver++(3M) as published falls as a method of order 2."
        "</figcaption></figure>"
    )


def law_part(results: Results) -> str:
    """Samplers with noise."""
    points = results.of("law")
    if not points:
        return ""
    text = (
        "<h2>Samplers with noise</h2><p>Sliced Wasserstein distance between their samples and "
        "exact draws of x at t_min; dashed, what two sets of exact draws are apart.</p>"
    )
    for problem in names(Cell(p["settings"]["problem"], "", 0) for p in points):
        here = {p["settings"]["sde"] for p in points if p["settings"]["problem"] == problem}
        picture = figures.laws(results, problem, sorted(here))
        text += f"<h3>{html.escape(problem)}</h3><figure>{picture}</figure>"
    return text + weak_and_strong(points)


def weak_and_strong(points: Sequence[Any]) -> str:
    """Tables of the two errors that only sdegen's own samplers can be asked for."""
    text = ""
    for key, measure, title, told in (
        ("weak", "variance", "Weak errors", "the largest relative error of a variance along the "
         "axes of the Gaussian, exactly, without a sample"),
        ("strong", "median", "Strong errors", "against the solution on the same Brownian path, "
         "median over samples, per coordinate"),
    ):  # fmt: skip
        here = [p for p in points if key in p]
        if not here:
            continue
        budgets = sorted({p["settings"]["nfe"] for p in here})
        rows: dict[tuple[str, ...], dict[int, float]] = {}
        for p in here:
            s = p["settings"]
            row = rows.setdefault((s["problem"], s["sde"], s["solver"]), {})
            row[s["nfe"]] = p[key][measure]
        lines = [
            [" ".join(name), *(number(row[b]) if b in row else "-" for b in budgets)]
            for name, row in sorted(rows.items())
        ]
        filled = table(lines, ["problem, SDE, sampler", *map(str, budgets)])
        text += f"<h3>{title}</h3><p>{told.capitalize()}.</p>"
        text += f"<details><summary>All {len(lines)} lines</summary>{filled}</details>"
    return text


def cost_part(results: Results) -> str:
    """What a network call costs beside the network."""
    timed = [p for p in results.points if "cost" in p]
    if not timed:
        return ""
    groups: dict[Choice, list[Any]] = {}
    for point in timed:
        groups.setdefault(choice_of(point)._replace(walk=None), []).append(point)

    def column(points: list[Any], key: str) -> float:
        return median(p["cost"][key] for p in points)

    rows = sorted(
        (
            median(p["cost"]["solver seconds"] / p["nfe"] for p in points),
            choice,
            [column(points, k) for k in ("kernels per call", "small kernels per call",
                                         "reads per call", "states alive")],
        )
        for choice, points in groups.items()
    )  # fmt: skip
    cells = [
        [choice.solver, choice.library, f"{1e6 * own:.0f}", *(f"{v:.1f}" for v in counts)]
        for own, choice, counts in rows
    ]
    return "<h2>Beside the network</h2><p>Per network call.</p>" + table(
        cells,
        ["solver", "library", "microseconds", "kernels", "small kernels", "host reads",
         "states alive"],
        [choice.ours for _, choice, _ in rows],
    )  # fmt: skip


def pictures(run: Path | None) -> str:
    """Paths in the plane and digits."""
    text = "<h2>What it looks like</h2>"
    for problem in ("mixture", "stiff"):
        drawn = figures.trajectories(problem, SHOWN)
        text += (
            f"<figure>{drawn}<figcaption>{problem}, VP, scaled to variance one; grey: the exact "
            "paths and the data; blue: the solver; red: where it ends.</figcaption></figure>"
        )
    grids = figures.digit_grids(DIGITS, (5, 8, 10, 20), run)
    whose = "a trained network" if run else "the exact denoiser of the training digits"
    return text + f"<figure>{grids}<figcaption>Digits by {whose}, VP.</figcaption></figure>"


def holes(results: Results) -> str:
    """Points that could not be, by reason."""
    if not results.holes:
        return "<h2>Holes</h2><p>None.</p>"
    reasons: dict[tuple[str, str], list[str]] = {}
    for point in results.holes:
        s = point["settings"]
        budget = next(f"{k} {s[k]}" for k in ("nfe", "steps", "tol") if k in s)
        reasons.setdefault((s["solver"], point["failed"]), []).append(
            f"{s['problem']} {s['sde']} {budget}"
        )
    rows = [
        [html.escape(solver), str(len(where)), html.escape(why), html.escape("; ".join(where[:3]))]
        for (solver, why), where in sorted(reasons.items())
    ]
    return f"<h2>Holes</h2><p>{len(results.holes)} points failed.</p>" + table(
        rows, ["solver", "points", "reason", "as at"], words=True
    )
