"""Tables of the report, and what is said of points that no figure shows."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from sdegen.bench.results import Cell, Choice, Errors, Results, choice_of, why_apart
from sdegen.report import figures
from sdegen.report.markup import Entry, Value, details, table
from sdegen.report.standings import TIE, Fixed, Pair, best, fixed, freely, mean, pairs

SPANS = {"5-10": (0, 10), "11-20": (11, 20), "21-50": (21, 50), "over 50": (51, 10**9)}
"""Of network calls, for a ranking."""
MOST = 400
"""Lines of a table of points that are not compared."""


def name(choice: Choice) -> str:
    """Of a solver and a walk, as HTML; a narrow column may break it where words meet."""
    return html.escape(str(choice)).replace("_", "_<wbr>")


def words(key: str, values: Iterable[Any]) -> str:
    """A plural that fits: 1 point, 2 points."""
    n = len(list(values))
    return f"{n:,} {key}{'' if n == 1 else 's'}"


# -------------------------------------------------------------------------------------- standings


def spans(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """All cells, and those of some numbers of calls."""
    parts = {key: [c for c in cells if low <= c.nfe <= high] for key, (low, high) in SPANS.items()}
    return {"all": list(cells), **{key: part for key, part in parts.items() if part}}


def contenders(ranking: Sequence[Fixed]) -> dict[str, Choice | bool]:
    """Who is held against whom: a choice, or a side that may choose anew at every budget."""
    found: dict[str, Choice | bool] = {}
    kinds: tuple[tuple[str, Callable[[Choice], bool]], ...] = (
        (figures.RULE, lambda c: c.rule),
        (figures.MINE, lambda c: c.ours and not c.rule),
        (figures.THEIRS, lambda c: not c.ours),
        (figures.OWN, lambda c: not c.ours and c.walk != "focused"),
    )
    for told, fits in kinds:
        first = next((f.choice for f in ranking if fits(f.choice)), None)
        if first is not None and first not in found.values():
            found[told] = first
    sides = {f.choice.ours for f in ranking}
    return found | {
        figures.FREE["sdegen" if side else "the others"]: side
        for side in (True, False)
        if side in sides
    }


def ratio_of(errors: Errors, cells: Sequence[Cell], which: Choice | bool) -> float | None:
    """A contender's error beside the best with hindsight."""
    if isinstance(which, bool):
        return freely(errors, cells, which)
    return next((f.ratio for f in fixed(errors, cells) if f.choice == which), None)


def standings_table(
    errors: Errors, cells: Sequence[Cell], shown: Mapping[str, Choice | bool]
) -> str:
    """Of contenders: over all cells, and by the number of calls."""
    columns = spans(cells)
    rows: list[list[Value]] = [
        [told + ("" if isinstance(which, bool) else f"<br><code>{name(which)}</code>")]
        + [ratio_of(errors, part, which) for part in columns.values()]
        for told, which in shown.items()
    ]
    ours = [which if isinstance(which, bool) else which.ours for which in shown.values()]
    return table(rows, ["", *heads(columns)], ours)


def heads(columns: Mapping[str, Any]) -> list[str]:
    """Of columns of spans."""
    return [key if key in ("all", *list(columns)[2:]) else f"{key} calls" for key in columns]


def ranking_table(errors: Errors, cells: Sequence[Cell], chosen: Choice | None) -> str:
    """Single choices, over all cells and by budget; the others' best in any case."""
    columns = spans(cells)
    ratios = {
        key: {f.choice: f.ratio for f in fixed(errors, part)} for key, part in columns.items()
    }
    order = list(ratios["all"])
    first = [*order[:14], *[c for c in order if not c.ours][:8], chosen]

    def rows(shown: Sequence[Choice]) -> str:
        lines: list[list[Value]] = [
            [name(c) + (" *" if c == chosen else ""), c.library]
            + [ratios[key].get(c) for key in columns]
            for c in shown
        ]
        header = ["solver / walk", "library", *heads(columns)]
        return table(lines, header, [c.ours for c in shown])

    every = details(f"All {len(order)}", rows(order)) if len(order) > len(set(first)) else ""
    return rows([c for c in order if c in first]) + every


def advice_table(errors: Errors, cells: Sequence[Cell]) -> str:
    """For every number of calls the best single choice of both sides; below, by SDE."""
    budgets = sorted({c.nfe for c in cells})
    sdes = list(dict.fromkeys(c.sde for c in cells))
    header = ["calls", "sdegen's", "the others'", "error beside theirs"]

    def line(part: Sequence[Cell]) -> list[Value]:
        ranked = fixed(errors, part)
        mine, theirs = (
            next((f for f in ranked if f.choice.ours == side), None) for side in (True, False)
        )
        both = mine.ratio / theirs.ratio if mine and theirs else None
        return [
            *(name(f.choice) if f else None for f in (mine, theirs)),
            Entry(both, late=both is not None and both > TIE),
        ]

    whole = [[nfe, *line([c for c in cells if c.nfe == nfe])] for nfe in budgets]
    by_sde: list[list[Value]] = [
        [sde, nfe, *line([c for c in cells if (c.nfe, c.sde) == (nfe, sde)])]
        for sde in sdes
        for nfe in budgets
    ]
    more = details("By SDE", table(by_sde, ["SDE", *header])) if len(sdes) > 1 else ""
    return table(whole, header) + more


# ------------------------------------------------------------------------------------------ cells


def behind_table(found: Sequence[Pair]) -> str:
    """Cells in which ours is behind, the worst first."""
    late = sorted((p for p in found if p.late), key=lambda p: -p.ratio)
    rows = [[html.escape(p.cell.problem), *pair_row(p)] for p in late]
    return table(rows, ["problem", *PAIR])


PAIR = ["SDE", "calls", "sdegen's best", "error", "the others' best", "error", "ratio"]


def pair_row(pair: Pair) -> list[Value]:
    """Who was best in a cell."""
    return [
        pair.cell.sde,
        pair.cell.nfe,
        name(pair.mine.choice),
        pair.mine.error,
        name(pair.theirs.choice),
        pair.theirs.error,
        Entry(pair.ratio, late=pair.late),
    ]


def error_table(errors: Errors, cells: Sequence[Cell]) -> str:
    """The best errors of both sides, a line for each SDE; below, whose they are."""
    found = pairs(errors, cells)
    late = {p.cell for p in found if p.late}
    budgets = sorted({c.nfe for c in cells})
    rows: list[list[Value]] = []
    for problem, sde in dict.fromkeys((c.problem, c.sde) for c in cells):
        for ours in (True, False):
            row: list[Value] = [f"{sde}, {'sdegen' if ours else 'others'}"]
            for nfe in budgets:
                cell = Cell(problem, sde, nfe)
                b = best(errors, cell, ours)
                row.append(Entry(b.error, str(b.choice), ours and cell in late) if b else None)
            rows.append(row)
    whose = details("Which solver and walk it was", table([pair_row(p) for p in found], PAIR))
    kinds = [i % 2 == 0 for i in range(len(rows))]
    return table(rows, ["error at", *map(str, budgets)], kinds, alike=True) + whose


# ------------------------------------------------------------------------------------------ noise


def law_table(distances: Errors, floors: Mapping[tuple[str, str], float]) -> str:
    """Distances beside their floors, as geometric means over all problems and SDEs."""
    cells = {cell for row in distances.values() for cell in row}
    budgets = sorted({c.nfe for c in cells})

    def over(row: Mapping[Cell, float], nfe: int) -> float | None:
        part = [c for c in cells if c.nfe == nfe]
        if not all(c in row for c in part):
            return None
        return mean(row[c] / floors[c.problem, c.sde] for c in part)

    lines = {c: [over(row, nfe) for nfe in budgets] for c, row in distances.items()}
    order = sorted(lines, key=lambda c: [x for x in lines[c] if x is not None][-1:] or [9e9])
    rows: list[list[Value]] = [[name(c), c.library, *lines[c]] for c in order]
    return table(
        rows,
        ["sampler / walk", "library", *map(str, budgets)],
        [c.ours for c in order],
        alike=True,
    )


def sampler_table(errors: Errors) -> str:
    """Of every problem, SDE and sampler."""
    cells = {cell for row in errors.values() for cell in row}
    budgets = sorted({c.nfe for c in cells})
    rows: list[list[Value]] = [
        [name(choice), problem, sde, *(row.get(Cell(problem, sde, nfe)) for nfe in budgets)]
        for problem, sde in sorted({(c.problem, c.sde) for c in cells})
        for choice, row in sorted(errors.items(), key=lambda item: str(item[0]))
        if any((c.problem, c.sde) == (problem, sde) for c in row)
    ]
    filled = table(rows, ["sampler / walk", "problem", "SDE", *map(str, budgets)], alike=True)
    return details(f"All {words('line', rows)}", filled)


# ------------------------------------------------------------------------------------------ costs


def cost_table(points: Sequence[Mapping[str, Any]]) -> str:
    """Per network call; dtype and device where they are not float64 and the CPU."""
    groups: dict[tuple[Choice, str], list[Any]] = {}
    for point in points:
        s, choice = point["settings"], choice_of(point)._replace(walk=None)
        on = f"{s['dtype']}, {s.get('device', 'cpu')}"
        groups.setdefault((choice, on), []).append(point)
    keys = ("kernels per call", "small kernels per call", "reads per call", "states alive")
    rows: list[list[Value]] = []
    for (choice, on), part in groups.items():
        own, whole = (
            median(1e6 * p["cost"][key] / p["nfe"] for p in part)
            for key in ("solver seconds", "seconds")
        )
        counts = [float(median(p["cost"][key] for p in part)) for key in keys]
        rows.append([choice.solver, choice.library, on, round(own), round(whole), *counts])
    rows.sort(key=lambda row: (row[2], row[3]))
    return table(
        rows,
        ["solver", "library", "on", "own, μs", "in all, μs", "kernels", "small", "reads", "alive"],
        [row[1] == "sdegen" for row in rows],
    )


# ----------------------------------------------------------------------------------------- others


def not_compared(points: Iterable[Mapping[str, Any]]) -> str:
    """How many points stand aside, and why."""
    reasons = Counter(why_apart(p) for p in points if why_apart(p))
    return "; ".join(f"{n:,} {html.escape(why)}" for why, n in reasons.most_common())


def aside_table(results: Results) -> str:
    """Points in another precision, on another device or by steps, beside those compared."""
    known = {"path": results.errors(), "law": results.distances()}
    rows: list[list[Value]] = []
    for p in results.aside:
        s, choice = p["settings"], choice_of(p)
        error = float(p["errors"]["median" if p["kind"] == "path" else "sliced"])
        usual = known[p["kind"]].get(choice, {}).get(Cell(s["problem"], s["sde"], p["nfe"]))
        budget = next(f"{s[k]} {w}" for k, w in BUDGETS.items() if k in s)
        where = [name(choice), *map(html.escape, (s["problem"], s["sde"]))]
        rows.append([*where, budget, p["nfe"], s["dtype"], s.get("device", "cpu"), error, usual])
    rows.sort(key=lambda row: (*map(str, row[:3]), row[4]))
    cut = f", the first {MOST} of {len(rows):,}" if len(rows) > MOST else ""
    header = ["solver / walk", "problem", "SDE", "asked for", "calls", "dtype", "device", "error",
              "float64, CPU, as many calls"]  # fmt: skip
    return details(f"{words('point', rows[:MOST])}{cut}", table(rows[:MOST], header))


BUDGETS = {"nfe": "calls", "steps": "steps", "tol": "tolerance"}


def holes_table(results: Results) -> str:
    """Points that could not be, by solver and reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for point in results.holes:
        s = point["settings"]
        budget = next(f"{s[k]} {w}" for k, w in BUDGETS.items() if k in s)
        where = f"{s['problem']} {s['sde']}, {budget}"
        reasons.setdefault((s["solver"], point["failed"]), []).append(where)
    rows: list[list[Value]] = [
        [html.escape(solver), len(where), html.escape(why), html.escape("; ".join(where[:3]))]
        for (solver, why), where in sorted(reasons.items())
    ]
    return table(rows, ["solver", "points", "reason", "as at"])
