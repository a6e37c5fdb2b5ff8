"""The report: one self-contained HTML page, readable on a phone and on paper."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdegen.bench import problems
from sdegen.bench.peers import SUPPORTED
from sdegen.bench.results import Cell, Choice, Errors, Results, load, write_csv
from sdegen.checks import file_name, optional, text
from sdegen.report import answers, figures, pictures, tables
from sdegen.report.figures import key
from sdegen.report.markup import STYLE, contents, gallery, heading, legend
from sdegen.report.standings import Fixed, cells_of, fixed


@dataclass(frozen=True)
class ReportSettings:
    """Of ``sdegen-bench report``.

    folder: of points, or the table that a page left.  out: the page.  costs: a folder of points
    that were timed.  run: that of a network on the digits, whose samples are shown.  default:
    solver/walk that is held against all fixed choices, None for the best of ours.
    """

    folder: str
    out: str
    costs: str | None
    run: str | None
    default: str | None

    def __post_init__(self) -> None:
        text("folder", self.folder), file_name("out", self.out)
        for name in ("costs", "run", "default"):
            optional(text, name, getattr(self, name))


def report_of(settings: ReportSettings) -> tuple[Results, Path]:
    """Figures and one page of what a folder holds, and the table of it beside the page."""
    folder, out = Path(settings.folder), settings.out
    if folder.is_file() and out.startswith(f"{settings.folder}/"):
        raise ValueError(f"{folder} is a table: say where the page goes, out=page.html.")
    results = load(folder)
    costs = load(Path(settings.costs)) if settings.costs else None
    path = write_page(results, costs, Path(out), settings.default, settings.run)
    write_csv(results, path.with_name("points.csv.gz"))
    return results, path


def write_page(
    results: Results, costs: Results | None, out: Path, default: str | None, run: str | None
) -> Path:
    """The page of all that the points say, and those with costs, written to ``out``.

    ValueError for an unknown default.
    """
    import matplotlib

    from sdegen.files import write_text

    errors = results.errors()
    cells = cells_of(errors)
    ranking = fixed(errors, cells)
    chosen = pick(errors, ranking, default)
    with matplotlib.rc_context(figures.LOOK):
        story = "".join(
            [
                answers.summary(errors, cells, ranking),
                answers.ranked(errors, cells, ranking, chosen),
                answers.advice(errors, cells),
                answers.behind(errors, cells),
                *(problem_part(results, errors, name, chosen) for name in problem_names(cells)),
                order_part(),
                law_part(results),
                aside_part(results),
                cost_part(costs),
                picture_part(Path(run) if run else None),
                holes(results),
            ]
        )
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>sdegen: work and precision</title><style>{STYLE}</style></head><body>"
        f"{head(results)}{contents(story)}{story}</body></html>\n"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    return out


def pick(errors: Errors, ranking: Sequence[Fixed], default: str | None) -> Choice | None:
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


def problem_names(cells: Iterable[Cell]) -> list[str]:
    """The problems, in order."""
    return list(dict.fromkeys(cell.problem for cell in cells))


# ------------------------------------------------------------------------------------------- head


def head(results: Results) -> str:
    """What this is and what it was made with."""
    others = [f"{name} {SUPPORTED.get(name, '')}".strip() for name in results.libraries()]
    aside = tables.not_compared(results.points)
    points = f"{len(results.points):,} points" + (f" ({aside}, shown apart)" if aside else "")
    told = [points, made_with(results.points), f"Beside it: {', '.join(others) or 'nobody'}"]
    return (
        "<h1>Work and precision of diffusion solvers</h1>"
        "<p>Every solver starts from the same states and is held against the exact end of the "
        "probability flow, found by two independent integrators. An error is a sample's root mean "
        "square over coordinates, and of all samples the median; work is network calls. Other "
        "libraries run on the same model, states and times, in float64.</p>"
        f'<p class="note">{html.escape(". ".join(filter(None, told)))}.</p>'
    )


def made_with(points: Sequence[Mapping[str, Any]]) -> str:
    """Versions, commits and machines, each once."""
    kinds = {
        key: sorted({str(p["about"][key]) for p in points if p["about"].get(key)})
        for key in ("sdegen", "commit", "torch", "python", "machine")
    }
    commits = [c.removesuffix("-dirty")[:9] for c in kinds["commit"]]
    dirty = any(c.endswith("-dirty") for c in kinds["commit"])
    kinds["commit"] = sorted(set(commits))
    parts = [
        f"{KEYS.get(key, key + ' ')}{first_few(values)}"
        + (", not all of it committed" if key == "commit" and dirty else "")
        for key, values in kinds.items()
        if values
    ]
    return "; ".join(parts)


KEYS = {"python": "Python ", "machine": ""}
"""What is said before a value, where it is not its key."""


def first_few(values: Sequence[str], most: int = 3) -> str:
    """The first few, and how many more there are."""
    rest = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(values[:most]) + rest


# --------------------------------------------------------------------------------------- problems


def problem_part(results: Results, errors: Errors, problem: str, chosen: Choice | None) -> str:
    """Curves, and who is best at each budget."""
    cells = [c for c in cells_of(errors) if c.problem == problem]
    drawn = figures.work_precision(errors, cells, chosen)
    looks = {str(chosen) if told == figures.ONE else told: s for told, s in figures.BEST.items()}
    if chosen not in errors:
        looks.pop(str(chosen))
    agreement = max(
        (p["agreement"] for p in results.of("path") if p["settings"]["problem"] == problem),
        default=math.nan,
    )
    caption = f"The reference's two integrators agree to {agreement:.0e}."
    return (
        f"{heading(problem)}<p>{described(problem)}</p>"
        + gallery(drawn, caption, legend(key(looks)))
        + tables.error_table(errors, cells)
    )


def described(problem: str) -> str:
    """What its function says of it."""
    made = getattr(problems, problem, None)
    return html.escape(made.__doc__.splitlines()[0]) if made else ""


def order_part() -> str:
    """How fast the error falls."""
    looks = dict(zip(pictures.LINES, figures.styles(len(pictures.LINES)), strict=True))
    drawn = [pictures.orders(pictures.LINES), legend(key(looks))]
    return (
        heading("Orders")
        + "<p>Error on the flow of a mixture over the number of equal steps in lam; broken lines "
        "fall as the first, second, third and fourth power. The slopes of all solvers on all SDEs "
        "are in docs/solvers.md.</p>"
        + gallery(drawn, "DPM-Solver++(3M) as published falls as a method of order 2.")
    )


# ------------------------------------------------------------------------------------------ noise


def law_part(results: Results) -> str:
    """Samplers with noise."""
    distances = dict(
        sorted(results.distances().items(), key=lambda item: (not item[0].ours, item[0]))
    )
    if not distances:
        return ""
    floors = {
        (p["settings"]["problem"], p["settings"]["sde"]): p["floor"]["sliced"]
        for p in results.of("law")
    }
    looks = {str(c): style for c, style in figures.law_styles(list(distances)).items()}
    lines = legend(key(looks), broad=True)
    text = (
        heading("Samplers with noise")
        + "<p>Sliced Wasserstein distance between their samples and exact draws of x at t_min. "
        "Nothing can be told apart below the floor, what two sets of exact draws are apart. "
        "First the distances beside that floor, as geometric means over problems and SDEs.</p>"
        + tables.law_table(distances, floors)
        + "<p>Solid lines are sdegen's, broken ones the others'; the black line is the floor.</p>"
    )
    cells = cells_of(distances)
    for problem in problem_names(cells):
        sdes = list(dict.fromkeys(c.sde for c in cells if c.problem == problem))
        drawn = gallery([*figures.laws(distances, floors, problem, sdes), lines])
        text += f"<h3>{html.escape(problem)}</h3>{drawn}"
    return text + weak_and_strong(results)


def weak_and_strong(results: Results) -> str:
    """The two errors that only sdegen's own samplers can be asked for."""
    text = ""
    for errors, title, told in (
        (results.weak(), "Weak errors", "The largest relative error of a variance along the axes "
         "of the Gaussian: exactly, without a sample."),
        (results.strong(), "Strong errors", "Against the solution on the same Brownian path, per "
         "coordinate, the median over samples; no smaller than what the reference is sure of."),
    ):  # fmt: skip
        if errors:
            text += f"<h3>{title}</h3><p>{told}</p>{tables.sampler_table(errors)}"
    return text


# ----------------------------------------------------------------------------------------- others


def aside_part(results: Results) -> str:
    """Points that are not compared, so that nothing is left out in silence."""
    if not results.aside:
        return ""
    return (
        heading("Points that are shown apart")
        + f"<p>{tables.not_compared(results.points)}. Their errors, medians of the flow's and "
        "sliced Wasserstein distances of those with noise, beside the same method's in float64 on "
        f"the CPU.</p>{tables.aside_table(results)}"
    )


def cost_part(results: Results | None) -> str:
    """What a network call costs beside the network."""
    timed = [p for p in results.points if "cost" in p] if results else []
    if not timed:
        return ""
    return (
        heading("Beside the network")
        + "<p>What a solver itself takes for each network call: time, operations on states and "
        "smaller ones (kernels on a GPU), values that the host waits for; and how many states "
        f"are alive at once.</p>{tables.cost_table(timed)}"
    )


def picture_part(run: Path | None) -> str:
    """Paths in the plane and digits."""
    text = heading("What it looks like")
    for problem in ("mixture", "stiff"):
        text += gallery(
            pictures.trajectories(problem, pictures.SHOWN),
            f"{problem}, VP, 10 steps, scaled to variance one; grey: the exact paths and the "
            "data; blue: the solver; red: where it ends.",
        )
    whose = "a trained network" if run else "the exact denoiser of the training digits"
    return text + gallery(
        pictures.digit_grids(pictures.DIGITS, (5, 8, 10, 20), run),
        f"Digits by {whose}, from the same six starts; beside each line the number of calls.",
    )


def holes(results: Results) -> str:
    """Points that could not be, by reason."""
    told = f"{tables.words('point', results.holes)} failed." if results.holes else "None."
    return f"{heading('Holes')}<p>{told}</p>{tables.holes_table(results)}"
