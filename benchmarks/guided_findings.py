"""What the table of guided.py says: the rule beside the best fixed choice of every library."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sdegen.files import atomic
from sdegen.sampling.recipes import guided

Row = dict[str, Any]
Cell = tuple[str, str, str, float, int]
Choice = tuple[str, str]
Table = dict[Choice, dict[Cell, float]]
FLOOR = 1e-8
"""Errors below are those of the reference, and count as so much."""
FOUND_ON = ("vp", "ve", "flow")
HELD_OUT = ("hexagon", "other digits")
LIBRARIES = {"k": "k-diffusion", "diffusers": "diffusers", "azula": "azula"}


def name_of(steps: int, strength: float, jumps: bool) -> str:
    """The row of the table that the rule is, for so many steps at a scale."""
    solver = guided(steps, strength, jumps)
    return f"wide_{solver.order}{solver.corrector}"


def table_of(rows: Iterable[Row]) -> Table:
    """Choice -> cell -> median error."""
    table: Table = {}
    for row in rows:
        cell = (row["problem"], row["sde"], row["kind"], row["scale"], row["calls"])
        table.setdefault((row["solver"], row["walk"]), {})[cell] = row["median"]
    return table


def mean(values: Iterable[float]) -> float:
    """Geometric."""
    logs = [math.log(max(value, FLOOR)) for value in values]
    return math.exp(sum(logs) / len(logs))


def plain(calls: int) -> Choice:
    """What is recommended without guidance; but for its Euler's last step below 12 calls."""
    return ("wide_44" if calls < 40 else "wide_55", "focused")


def of_rule(table: Table, c: Cell) -> float:
    """The error of what is recommended."""
    return table[name_of(c[4], c[3], c[2] == "interval"), "focused"][c]


def rule(table: Table, cells: Sequence[Cell]) -> float:
    """What is recommended, over cells."""
    return mean(of_rule(table, c) for c in cells)


def best(table: Table, cells: Sequence[Cell], names: Sequence[str]) -> tuple[float, Choice]:
    """The best fixed choice of some solvers, each on the best of its walks."""
    full = [c for c in table if c[0] in names and all(cell in table[c] for cell in cells)]
    return min((mean(table[c][cell] for cell in cells), c) for c in full)


def compared(
    table: Table, cells: Sequence[Cell], ours: Sequence[str], theirs: Sequence[str]
) -> dict[str, Any]:
    """By calls: the rule, our best fixed choice, that of each library, and what was recommended
    for plain models."""
    found = {}
    for calls in sorted({c[4] for c in cells}):
        part = [c for c in cells if c[4] == calls]
        rows: dict[str, Any] = {"recommended": short(rule(table, part)), "cells": len(part)}
        for prefix, library in LIBRARIES.items():
            own = [name for name in theirs if name.startswith(f"{prefix}_")]
            if any(name == c[0] for name in own for c in table):
                rows[library] = said(best(table, part, own))
        if len(rows) > 2:
            least = min(rows[name]["error"] for name in LIBRARIES.values() if name in rows)
            rows["beside their best"] = round(rows["recommended"] / least, 3)
        rows["best of ours"] = said(best(table, part, ours))
        if plain(calls) in table:
            rows["for plain models"] = short(mean(table[plain(calls)][c] for c in part))
        found[str(calls)] = rows
    return found


def beside_plain(table: Table, cells: Sequence[Cell]) -> dict[str, Any]:
    """By calls: how the rule compares with the one for plain models cell by cell, and its largest
    error."""
    found = {}
    for calls in sorted({c[4] for c in cells if plain(c[4]) in table}):
        part = [c for c in cells if c[4] == calls]
        errors = {c: (of_rule(table, c), table[plain(calls)][c]) for c in part}
        ratio = {c: max(a, FLOOR) / max(b, FLOOR) for c, (a, b) in errors.items()}
        worst = max(part, key=lambda c: ratio[c])
        found[str(calls)] = {
            "cells": len(part),
            "mean ratio": short(mean(ratio.values())),
            "worse by 5 %": sum(r > 1.05 for r in ratio.values()),
            "better by 5 %": sum(r < 1 / 1.05 for r in ratio.values()),
            "worst ratio": short(ratio[worst]),
            "where": [*worst[:2], worst[3]],
            "largest error": short(max(a for a, _ in errors.values())),
        }
    return found


def short(value: float) -> float:
    """Three digits."""
    return float(f"{value:.3g}")


def said(choice: tuple[float, Choice]) -> dict[str, Any]:
    """An error and whose it is."""
    return {"error": short(choice[0]), "solver": choice[1][0], "walk": choice[1][1]}


def by_solver(table: Table, cells: Sequence[Cell]) -> dict[str, Any]:
    """Errors of the rule and of every solver on the focused walk, by calls; all that were measured
    there."""
    full = {n: [c for c in cells if c[4] == n] for n in sorted({c[4] for c in cells})}
    found: dict[str, Any] = {
        "recommended": {str(n): short(rule(table, part)) for n, part in full.items()}
    }
    for name, walk in sorted(table):
        row = table[name, walk]
        if walk == "focused":
            known = {n: part for n, part in full.items() if all(c in row for c in part)}
            found[name] = {str(n): short(mean(row[c] for c in own)) for n, own in known.items()}
    return {name: row for name, row in found.items() if row}


def findings(rows: Sequence[Row], ours: Sequence[str], theirs: Sequence[str]) -> dict[str, Any]:
    """All comparisons, by parts of the cells."""
    table = table_of(rows)
    cells = sorted({cell for row in table.values() for cell in row})
    own = [c for c in cells if c[0] not in HELD_OUT]
    parts: dict[str, Callable[[Cell], bool]] = {
        "all": lambda c: True,
        "SDEs that had no part in it": lambda c: c[1] not in FOUND_ON,
        **{f"scale {s:g}": lambda c, s=s: c[3] == s for s in sorted({c[3] for c in own})},  # type: ignore[misc]
        **{k: lambda c, k=k: c[2] == k for k in sorted({c[2] for c in own})},  # type: ignore[misc]
        **{p: lambda c, p=p: c[0] == p for p in sorted({c[0] for c in own})},  # type: ignore[misc]
        **{e: lambda c, e=e: c[1] == e for e in sorted({c[1] for c in own})},  # type: ignore[misc]
    }
    said_of = {
        name: compared(table, [c for c in own if kept(c)], ours, theirs)
        for name, kept in parts.items()
    }
    held = [c for c in cells if c[0] in HELD_OUT]
    if held:
        said_of["problems and scales held out"] = compared(table, held, ours, theirs)
    few = [c for c in own if c[0] == "ring" and c[2] == "plain"]
    kinds = {
        f"{where}{k}": [c for c in of if c[2] == k]
        for where, of in (("", own), ("held out, ", held))
        for k in sorted({c[2] for c in of})
    }
    for s in sorted({c[3] for c in own}):
        kinds[f"plain, scale {s:g}"] = [c for c in own if c[2:4] == ("plain", s)]
    return {
        "comparisons": said_of,
        "beside the rule for plain models": {
            k: beside_plain(table, of) for k, of in kinds.items()
        },
        "solvers": {
            f"scale {s:g}, plain": by_solver(
                table, [c for c in own if c[3] == s and c[2] == "plain"]
            )
            for s in sorted({c[3] for c in own})
        },
        "splitting": {
            f"scale {s:g}": by_solver(table, [c for c in few if c[3] == s])
            for s in sorted({c[3] for c in few})
        },
    }


def picture(record: dict[str, Any], path: Path) -> None:
    """Error against evaluations, a panel a scale."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    scales = list(record["splitting"])
    figure = Figure(figsize=(3.1 * len(scales), 3.0), layout="constrained")
    axes = figure.subplots(1, len(scales), sharey=True, squeeze=False)[0]
    for ax, scale in zip(axes, scales, strict=True):
        found = record["comparisons"][scale]
        x = [2 * int(calls) for calls in found]
        lines = {
            "recommended": ([r["recommended"] for r in found.values()], "#1b6ca8", "-"),
            "as for plain models": (
                [r.get("for plain models", math.nan) for r in found.values()],
                "#1b6ca8",
                ":",
            ),
        }
        for library, colour in (
            ("diffusers", "#c05640"),
            ("k-diffusion", "#5c8a3a"),
            ("azula", "#8661a8"),
        ):
            own = [r[library]["error"] if library in r else math.nan for r in found.values()]
            lines[f"{library}, its best"] = (own, colour, "-")
        for name, (y, colour, style) in lines.items():
            ax.plot(x, y, style, color=colour, label=name, marker="o", markersize=3)
        ax.set(xscale="log", yscale="log", title=scale, xlabel="evaluations")
        ax.set_xticks(x, [str(n) for n in x])
        ax.minorticks_off()
        ax.grid(alpha=0.25, linewidth=0.5)
    axes[0].set_ylabel("median error")
    axes[0].legend(fontsize=7, frameon=False)
    with rc_context({"svg.hashsalt": "sdegen", "svg.fonttype": "none"}), atomic(path) as part:
        FigureCanvasSVG(figure).print_svg(str(part), metadata={"Date": None})
