"""What the report says first: who is best, what one choice costs, and where sdegen is behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdegen.bench.results import Cell, Choice, Errors
from sdegen.report import figures, tables
from sdegen.report.markup import details, gallery, heading, legend, number
from sdegen.report.standings import Fixed, mean, pairs

BESIDE = (
    "Error beside the best with hindsight in each combination, tuned solvers apart; geometric "
    "means over all problems and SDEs."
)


def summary(errors: Errors, cells: Sequence[Cell], ranking: Sequence[Fixed]) -> str:
    """Is the best of ours the best, and what is the price of one choice?"""
    found = pairs(errors, cells)
    if not found:
        return "<p>No other library has points at a number of network calls.</p>"
    blind = pairs({c: row for c, row in errors.items() if c.blind}, cells)
    shown = tables.contenders(ranking)
    panel = figures.standing(errors, cells, shown)
    lines = legend(figures.key({told: figures.STANDING[told] for told in shown}))
    late = sum(p.late for p in found)
    return (
        heading("In short")
        + f"<p><b>With hindsight</b>, at {len(found)} combinations of problem, SDE and number of "
        f"calls, the best of sdegen has {number(mean(p.ratio for p in found))} times the error of "
        f"the best of the others (geometric mean), and is behind in {late or 'none'}. Without "
        f"solvers tuned to the problem: {number(mean(p.ratio for p in blind))} times, behind in "
        f"{sum(p.late for p in blind) or 'none'}.</p>"
        + freedom(errors, cells, shown)
        + tables.standings_table(errors, cells, shown)
        + gallery([panel, lines], BESIDE)
    )


def freedom(errors: Errors, cells: Sequence[Cell], shown: Mapping[str, Choice | bool]) -> str:
    """Our choices beside theirs, and beside theirs given the same freedom."""
    ratio = {told: tables.ratio_of(errors, cells, which) for told, which in shown.items()}
    single, free = ratio.get(figures.THEIRS), ratio.get(figures.FREE["the others"])
    if single is None or free is None:
        return ""
    text = "<p><b>Chosen beforehand</b>, the same for all problems and SDEs."
    for key, who in (
        (figures.RULE, "What sdegen recommends, a rule of the number of calls,"),
        (figures.MINE, "The best single solver and walk of sdegen"),
    ):
        if (mine := ratio.get(key)) is not None:
            text += (
                f" {who} has {number(mine / single)} times the error of the others' best solver "
                f"and walk, {number(mine / free)} times that of the others given the freedom to "
                "choose anew at every number of calls."
            )
    return (
        f"{text} All were picked on these very problems. Below, each beside the best with "
        "hindsight.</p>"
    )


def ranked(
    errors: Errors, cells: Sequence[Cell], ranking: Sequence[Fixed], chosen: Choice | None
) -> str:
    """Single choices, in order."""
    blind = [choice for choice in errors if choice.blind]
    return (
        heading("One choice for everything")
        + "<p>Each method with one walk, taken before the problem is seen: geometric mean of its "
        "error beside the best of all methods in each combination. "
        f"{len(ranking)} of {len(blind)} choices solved all of them and are ranked. * is drawn in "
        "red below.</p>" + tables.ranking_table(errors, cells, chosen)
    )


def advice(errors: Errors, cells: Sequence[Cell]) -> str:
    """What to take at a number of calls."""
    return (
        heading("What to take")
        + "<p>The one choice of each side that is best over all problems and SDEs at a number of "
        "network calls, tuned solvers apart, and sdegen's error beside the others'.</p>"
        + tables.advice_table(errors, cells)
    )


def behind(errors: Errors, cells: Sequence[Cell]) -> str:
    """Where another library is ahead: all of it."""
    found = pairs(errors, cells)
    blind = pairs({c: row for c, row in errors.items() if c.blind}, cells)
    text = heading("Where sdegen is behind")
    for told, part in (("", found), (", solvers tuned to the problem apart", blind)):
        late = [p for p in part if p.late]
        if told and [p.cell for p in late] == [p.cell for p in found if p.late]:
            continue
        where = f"{len(late) or 'none'} of {len(part)} combinations{told}"
        text += f"<p>In {where}.</p>"
        text += details(f"All {len(late)}, the worst first", tables.behind_table(part))
    return text
