"""Curves of the report: panels of one size as SVG, each a pure function of the points."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import chain, cycle
from typing import Any

from sdegen.bench.results import Cell, Choice, Errors
from sdegen.report.standings import best, fixed

OURS, DEFAULT, OTHERS = "#0b62a4", "#d1495b", "#333333"
PALE = {True: "#b5d1e8", False: "#c4c4c4"}
"""Of all methods, ours or not."""
LOOK: Any = {
    "backend": "svg", "svg.fonttype": "none", "font.size": 8, "axes.titlesize": 9,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "grid.color": "#e6e6e6", "grid.linewidth": 0.6,
}  # fmt: skip
ONE = "one choice for everything"
BEST: dict[str, dict[str, Any]] = {
    "best of sdegen": {"color": OURS, "lw": 1.8, "ls": "-"},
    "best of the others": {"color": OTHERS, "lw": 1.6, "ls": (0, (4, 2))},
    ONE: {"color": DEFAULT, "lw": 1.5, "ls": "-"},
    "every sdegen solver and walk": {"color": PALE[True], "lw": 1.0, "ls": "-"},
    "every other": {"color": PALE[False], "lw": 1.0, "ls": "-"},
}
"""How lines of work and precision look."""
MINE, RULE = "sdegen's best solver and walk", "sdegen's recommendation"
THEIRS, OWN = "the others' best solver and walk", "the same, on walks of their own"
FREE = {side: f"{side}, chosen anew at every number of calls" for side in ("sdegen", "the others")}
STANDING: dict[str, dict[str, Any]] = {
    RULE: {"color": DEFAULT, "marker": "o", "ms": 4, "mew": 0, "lw": 1.8, "ls": "-"},
    MINE: {"color": OURS, "marker": "s", "ms": 3.4, "mew": 0, "lw": 1.2, "ls": "-"},
    THEIRS: {"color": OTHERS, "marker": "s", "ms": 3.4, "mew": 0, "lw": 1.2, "ls": (0, (4, 2))},
    OWN: {"color": "#8a8a8a", "marker": "D", "ms": 3.2, "mew": 0, "lw": 1.0, "ls": (0, (1, 1))},
    FREE["sdegen"]: {"color": "#6aa9d8", "marker": "^", "ms": 4, "mew": 0, "lw": 1.0, "ls": "-"},
    FREE["the others"]: {"color": OTHERS, "marker": "^", "ms": 4, "mew": 0, "lw": 1.8, "ls": "-"},
}
"""Who is held against whom, and how their lines look."""
COLORS = ("#0b62a4", "#d1495b", "#2a8c4a", "#c77c11", "#7b4fa3", "#444444")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def svg(figure: Any, salt: str) -> str:
    """A figure as an SVG element: no head, no names that nothing uses, two decimals.

    salt: what tells its inner names from those of the page's other figures.
    """
    import matplotlib.pyplot as plt

    out = io.StringIO()
    with plt.rc_context({"svg.hashsalt": salt}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", out.getvalue(), flags=re.DOTALL)
    used = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda m: shorter(m[0]), text)
    text = text[text.index("<svg") :]
    return f'<svg role="img" aria-label="{html.escape(salt)}"' + re.sub(r"\s*\n\s*", " ", text[4:])


def shorter(text: str) -> str:
    """Numbers cut to two decimals."""
    return re.sub(r"(\d\.\d\d)\d+", r"\1", text)


def panel(title: str, height: float = 2.4, **margins: float) -> tuple[Any, Any]:
    """A figure of one set of axes; all are as wide, and lie at the same place."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1, height))
    place = {"left": 0.17, "right": 0.98, "top": 1 - 0.22 / height, "bottom": 0.38 / height}
    figure.subplots_adjust(**{**place, **margins})
    axis = figure.add_subplot()
    axis.set_title(title)
    return figure, axis


def swatch(style: Mapping[str, Any]) -> str:
    """A line as it looks, for a legend."""
    return line_of(tuple(style.items()))


def key(looks: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Of a legend: the line and the name of each."""
    return [(swatch(style), name) for name, style in looks.items()]


@cache
def line_of(style: tuple[tuple[str, Any], ...]) -> str:
    """Drawn once."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(0.46, 0.18))
    figure.add_artist(Line2D([0.02, 0.5, 0.98], [0.5] * 3, markevery=[1], **dict(style)))
    figure.patch.set_visible(False)
    return svg(figure, "").replace(' role="img" aria-label=""', ' aria-hidden="true"')


def power(value: float) -> str:
    """A tick's text: 0.02, or 10 to a power."""
    exponent = math.floor(math.log10(value) + 1e-9)
    digit = round(value / 10**exponent)
    if -2 <= exponent <= 2:
        return f"{digit * 10.0**exponent:g}"
    raised = f"10{str(exponent).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    return raised if digit == 1 else f"{digit}·{raised}"


def ticks(low: float, high: float) -> list[float]:
    """Three to seven: powers of ten, every few of them, or 1, 2 and 5 of each."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = [e for e in range(first, last + 1) if low <= 10.0**e <= high]
    if len(decades) >= 3:
        return [10.0**e for e in decades if (e - decades[-1]) % -(-len(decades) // 6) == 0]
    fine = [d * 10.0**e for e in range(first, last + 1) for d in (1, 2, 5)]
    return [mark for mark in fine if low <= mark <= high]


def scaled(axis: Any, calls: Sequence[int], low: float, high: float) -> None:
    """Both axes logarithmic, with ticks that do not touch."""
    low, high = low / (high / low) ** 0.04, high * (high / low) ** 0.04
    axis.set(xscale="log", yscale="log", ylim=(low, high))
    named = calls if len(calls) < 6 else {*NAMED, calls[0], calls[-1]}
    axis.set_xticks(calls, [str(b) if b in named else "" for b in calls])
    marks = ticks(low, high)
    axis.set_yticks(marks, [power(mark) for mark in marks])
    axis.minorticks_off()
    axis.grid(True)
    axis.set_axisbelow(True)


NAMED = (5, 10, 20, 50, 100, 200, 500, 1000)
"""Numbers of calls that are written below an axis."""


def bundle(axis: Any, lines: Sequence[Sequence[tuple[int, float]]], color: str) -> None:
    """Many thin lines as one path."""
    gap = [(math.nan, math.nan)]
    points = list(chain.from_iterable([*line, *gap] for line in lines if line))
    if points:
        axis.plot(*zip(*points, strict=True), color=color, lw=0.45, zorder=1)


def along(row: Mapping[Cell, float], cells: Sequence[Cell]) -> list[tuple[int, float]]:
    """The curve of a choice."""
    return [(c.nfe, row[c]) for c in cells if c in row and math.isfinite(row[c])]


def work_precision(errors: Errors, every: Sequence[Cell], one: Choice | None) -> list[str]:
    """Error over network calls, a panel for each SDE: every method, and who is best at each.

    every: the cells of one problem.
    """
    budgets = sorted({c.nfe for c in every})
    tops = [b.error for c in every for mine in (True, False) if (b := best(errors, c, mine))]
    known = [y for row in errors.values() for _, y in along(row, every)]
    low, high = min(known), min(max(known), 30 * max(tops))
    drawn = []
    for sde in dict.fromkeys(c.sde for c in every):
        cells = [c for c in every if c.sde == sde]
        figure, axis = panel(sde)
        for mine in (True, False):
            lines = [along(row, cells) for choice, row in errors.items() if choice.ours == mine]
            bundle(axis, lines, PALE[mine])
        if one is not None and one in errors:
            axis.plot(*curve(along(errors[one], cells)), **BEST[ONE])
        for mine, name in ((False, "best of the others"), (True, "best of sdegen")):
            line = [(c.nfe, b.error) for c in cells if (b := best(errors, c, mine))]
            axis.plot(*curve(line), **BEST[name])
        scaled(axis, budgets, low, high)
        axis.set(xlabel="network calls", ylabel="median error")
        drawn.append(svg(figure, f"{cells[0].problem}, {sde}: error over network calls"))
    return drawn


def curve(line: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Points as matplotlib wants them."""
    return [x for x, _ in line], [y for _, y in line]


def standing(errors: Errors, cells: Sequence[Cell], shown: Mapping[str, Choice | bool]) -> str:
    """Error beside the best with hindsight, over calls: of choices, or of a side (ours or not)
    that chooses anew at every number of calls."""
    budgets = sorted({c.nfe for c in cells})
    figure, axis = panel("all problems and SDEs")
    low, high = math.inf, 1.0
    for told, which in shown.items():
        line = []
        for nfe in budgets:
            ranked = fixed(errors, [c for c in cells if c.nfe == nfe])
            found = next((f for f in ranked if which in (f.choice, f.choice.ours)), None)
            line += [(nfe, found.ratio)] if found else []
        axis.plot(*curve(line), **STANDING[told])
        low, high = min([low, *curve(line)[1]]), max([high, *curve(line)[1]])
    scaled(axis, budgets, min(low, 1.0), max(high, 2.0))
    axis.set(xlabel="network calls", ylabel="error beside the best's")
    return svg(figure, "Error beside the best with hindsight over network calls")


def styles(n: int) -> list[dict[str, Any]]:
    """A color and a marker for each, no pair twice among 42; every second six are hollow."""
    looks = zip(cycle(COLORS), cycle(MARKERS), range(n), strict=False)
    return [
        {"color": color, "marker": marker, "ms": 4.2, "lw": 1.1, "ls": "-", "mew": 0.9}
        | ({"mfc": "white"} if i // len(COLORS) % 2 else {})
        for color, marker, i in looks
    ]


def law_styles(choices: Sequence[Choice]) -> dict[Choice, dict[str, Any]]:
    """Of samplers with noise: lines of other libraries are broken."""
    looks = dict(zip(choices, styles(len(choices)), strict=True))
    return {c: look if c.ours else {**look, "ls": (0, (3, 1.5))} for c, look in looks.items()}


def laws(
    distances: Errors, floors: Mapping[tuple[str, str], float], problem: str, sdes: Sequence[str]
) -> list[str]:
    """Sliced Wasserstein distance of samplers with noise, with the floor of exact draws."""
    looks = law_styles(list(distances))
    here = [c for row in distances.values() for c in row if c.problem == problem]
    budgets = sorted({c.nfe for c in here})
    known = [row[c] for row in distances.values() for c in row if c.problem == problem]
    known += [floors[problem, sde] for sde in sdes]
    drawn = []
    for sde in sdes:
        figure, axis = panel(sde)
        axis.axhline(floors[problem, sde], color="k", lw=0.9, ls=(0, (6, 3)))
        for choice, row in distances.items():
            line = along(row, [Cell(problem, sde, nfe) for nfe in budgets])
            axis.plot(*curve(line), **looks[choice])
        scaled(axis, budgets, min(known), max(known))
        axis.set(xlabel="network calls", ylabel="sliced Wasserstein")
        drawn.append(svg(figure, f"{problem}, {sde}: distance over network calls"))
    return drawn
