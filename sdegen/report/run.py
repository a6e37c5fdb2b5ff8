"""The page of a run: one self-contained HTML file, to be looked at in any browser."""

from __future__ import annotations

import base64
import html
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import Tensor

from sdegen.checks import file_name, text, texts, whole
from sdegen.files import read_json, read_tensors, write_text
from sdegen.metrics.quality import Quality
from sdegen.report import states
from sdegen.report.commands import command
from sdegen.report.curves import training
from sdegen.report.markup import STYLE, Value, contents, details, heading, table
from sdegen.runs import bars
from sdegen.runs.build import build, build_walk
from sdegen.runs.compare import budgets_of
from sdegen.runs.finish import SAMPLES
from sdegen.runs.folder import REFERENCE, Run, load_run
from sdegen.runs.heads import with_head
from sdegen.runs.settings import Comparison, Node, read
from sdegen.sampling.march import solve
from sdegen.solvers.solver import Solver, arrived

SHOWN = {"points": 1000, "images": 40}
"""Samples of each solver at each budget."""
COLUMNS = 8
"""Of their images."""
GROUPS = {
    "sample": {"solver": "dpmpp", "walk": "default", "guidance": "none", "task": "none",
               "observation": "none"},
    "evaluate": {"data": "", "solver": "", "walk": "default"},
}  # fmt: skip
"""The groups of the commands whose results are in a run's folder, and their defaults."""
LOOK = """
canvas { width: 100%; aspect-ratio: 1; display: block; }
.points canvas { outline: 1px solid var(--line); }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; max-width: 46rem; }
.two > div { display: flex; flex-direction: column; } .two canvas { margin-top: auto; }
.two p, .grid p { margin: .2rem 0; font-size: .875rem; }
.level { display: flex; flex-wrap: wrap; gap: .3rem .8rem; align-items: center; max-width: 46rem; }
.level input { flex: 1 1 12rem; } .level output { min-width: 13rem; }
.level button { font: inherit; padding: .25rem 0; width: 4.5rem; }
.grid { display: flex; flex-wrap: wrap; gap: .5rem .8rem; margin: .3rem 0 1rem; max-width: 46rem; }
.grid > div { flex: 1 1 6rem; max-width: 15rem; }
.pictures img { width: 100%; display: block; max-width: 46rem; }
.line { white-space: nowrap; }
pre { overflow-x: auto; background: #f3f3f3; padding: .6rem; font-size: .8rem; }
"""


@dataclass(frozen=True)
class RunReportSettings:
    """Of ``sdegen-report``.

    run: the folder of a finished run.  out: the page.  nfe: network calls of the two solvers that
    are watched on their way, left and right, from the starts of the seed.
    """

    run: str
    out: str
    nfe: int
    seed: int
    left: Node
    right: Node
    device: str
    packages: list[str]

    def __post_init__(self) -> None:
        text("run", self.run), file_name("out", self.out), text("device", self.device)
        whole("nfe", self.nfe), whole("seed", self.seed, None), texts("packages", self.packages)


def report_run(settings: RunReportSettings, say: Callable[[str], None]) -> Path:
    """Sample what the page shows with the run's finished weights, and write the page.

    It holds everything that it shows, and asks for nothing from elsewhere.

    Raises ValueError where the run is not finished, its weights are damaged, or a solver cannot
    solve its equation; nothing is written then.
    """
    run = load_run(Path(settings.run), settings.packages, settings.device)
    kept = [worth(run), training(run.folder)]  # first, since what is damaged there is said at once
    story = "".join(
        [
            *moving(run, settings, say),
            *kept,
            heading("Configuration"),
            details("All of it", f"<pre>{html.escape(json.dumps(run.config, indent=1))}</pre>"),
        ]
    )
    name = html.escape(run.folder.name)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}: a run of sdegen</title><style>{STYLE}{LOOK}</style></head><body>"
        f"{head(run)}{contents(story)}{story}</body></html>\n"
    )
    out = Path(settings.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page)
    return out


def head(run: Run) -> str:
    """What was trained on what."""
    import sdegen

    config, model = run.config, run.model
    data = config["data"].get("train", config["data"])
    many = sum(p.numel() for p in model.parameters())
    shape = " x ".join(map(str, run.shape))
    at = "" if run.step is None else f" for {run.step:,} steps"
    return (
        f"<h1>{html.escape(run.folder.name)}</h1><p>A score model of {last_name(data)} ({shape}"
        f"{f', {len(run.counts)} classes' if run.counts else ''}): {type(model.sde).__name__}, "
        f"{last_name(config['net'])} of {many:,} parameters, trained{at} in batches of "
        f"{config['train']['batch_size']}. Made with sdegen {sdegen.__version__}.</p>"
    )


def last_name(node: Any) -> str:
    """What a node builds, in a word."""
    target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
    more = "" if not target else str(node.get("name") or Path(node.get("path") or "").name)
    return html.escape(f"{target.rpartition('.')[2] or 'a data set'} {more}".strip())


# ---------------------------------------------------------------------------------- what is drawn


def moving(run: Run, settings: RunReportSettings, say: Callable[[str], None]) -> Iterator[str]:
    """The samples on their way and by budget; of a run that restores, and of shapes that the page
    cannot move, the run's own pictures."""
    kind = states.viewable(run.shape)
    if run.config.get("task") or run.config.get("coder") or not kind:
        yield heading("Pictures") + pictures(run.folder)
        return
    if own := run.config.get("sampler"):
        solver = build(own, settings.packages)
        yield way(run, settings, {type(solver).__name__: solver})
    else:
        nodes = (settings.left, settings.right)
        pair = [build(with_head(n, run.config, run.folder), settings.packages) for n in nodes]
        yield way(run, settings, dict(zip(told(pair), pair, strict=True)))
    yield grids(run, settings, kind)


def told(solvers: Sequence[Any]) -> list[str]:
    """Names of two solvers, which may be of one class."""
    names = [type(solver).__name__ for solver in solvers]
    if names[0] == names[1]:
        names = [repr(solver) for solver in solvers]
    return names if names[0] != names[1] else [f"{name} ({i})" for i, name in enumerate(names, 1)]


def way(run: Run, settings: RunReportSettings, solvers: Mapping[str, Any]) -> str:
    """Two solvers side by side, or the run's own sampler, with a slider over the noise level."""
    own = run.config.get("sampler")
    walk = build_walk({**run.config, "packages": settings.packages})
    for solver in solvers.values():
        if not isinstance(solver, Solver) or solver.traits.adaptive:
            raise ValueError(
                f"left and right are solvers with steps at the levels of a walk, but "
                f"{type(solver).__name__} chooses its own: take another, as solver@left=heun."
            )
    # A student has the numbers of calls that it was measured at.
    nfe = max(run.config["evaluate"]["budgets"]) if own else settings.nfe
    n = states.followed(run.shape, 2 * nfe + 2)
    how = {"nfe": nfe, "walk": walk, "seed": settings.seed}
    given = run.given(n)
    found = states.ways(given, (n, *run.shape), solvers, how)
    script = (files("sdegen.report") / "viewer.js").read_text(encoding="utf-8")
    sides = "".join(
        f"<div><p><b>{html.escape(each['name'])}</b>, {each['nfe']} calls</p>"
        f'<canvas id="way-{i}" role="img" aria-label="samples of {html.escape(each["name"])}">'
        f'</canvas><p class="note" id="told-{i}"></p></div>'
        for i, each in enumerate(found["solvers"])
    )
    last = len(found["levels"]) - 1
    whose = "by the run's own sampler" if own else "from the same starts"
    packed = json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")
    return (
        heading("On the way")
        + f"<p>{n} samples {whose}, from noise to data. Above &sigma;/&alpha; = 1 "
        "there is more noise than data. States wider than the data are drawn smaller.</p>"
        f'<div class="level"><button type="button" id="play">Play</button>'
        f'<input type="range" id="level" min="0" max="{last}" value="{last}" '
        f'aria-label="noise level"><output id="said"></output></div>'
        f'<div class="two {found["kind"]}">{sides}</div>'
        f'<script type="application/json" id="states">{packed}</script>'
        # after the whole page, whose canvases it fills
        f'<script>addEventListener("DOMContentLoaded", () => {{\n{script}}});</script>'
    )


def grids(run: Run, settings: RunReportSettings, kind: str) -> str:
    """The run's solvers at the run's budgets, all from the same starts."""
    config = {**run.config, "packages": settings.packages}
    compared = read(Comparison, {"solvers": {}, **config["evaluate"]})
    # The colours of points are those of the samples that are watched.
    n = states.POINTS if kind == "points" and run.counts else SHOWN[kind]
    given = run.given(n)
    how = {"walk": build_walk(config), "seed": settings.seed}
    solvers = {key: build(node, settings.packages) for key, node in compared.solvers.items()}
    jobs = [(k, s, b) for k, s in solvers.items() for b in budgets_of(s, compared.budgets)]
    ends: list[tuple[str, str, Tensor]] = []
    for name, solver, budget in bars.bar(jobs, desc="sampling", unit="solve", leave=False):
        solution = solve(given, (n, *run.shape), solver=solver, nfe=budget, **how)
        lost = int((~arrived(solution.status)).sum())
        told = f"{int(solution.nfe.max())} calls" + (f", {lost} failed" if lost else "")
        ends.append((name, told, solution.x.float().cpu().nan_to_num(0.0, 0.0, 0.0)))
    # By most of them: one that diverged would make dots of all others.
    half = statistics.median_low([states.extent(x) for _, _, x in ends] or [1.0])
    story = ""
    for name in solvers:
        cells = [cell(x, kind, half, f"{name}, {told}") for key, told, x in ends if key == name]
        story += f'<h3>{html.escape(name)}</h3><div class="grid {kind}">{"".join(cells)}</div>'
    same = "<p>Each solver at each number of network calls, from the same starts.</p>"
    return heading("Samples") + same + story if ends else ""


def cell(x: Tensor, kind: str, half: float, told: str) -> str:
    """Samples (n, *) of a solver at a budget."""
    told = html.escape(told)
    if kind == "points":
        packed, shape = states.integers(x, half), "1"
        outside = int((x.abs() > half).any(1).sum())
        told += f", {outside} of {len(x)} outside" if outside > 0.01 * len(x) else ""
    else:
        packed = states.sheet(x, COLUMNS)
        shape = f"{COLUMNS * x.shape[3]} / {-(-len(x) // COLUMNS) * x.shape[2]}"
    return (
        f'<div><canvas data-samples="{packed}" style="aspect-ratio: {shape}" role="img" '
        f'aria-label="{told}"></canvas><p>{told.partition(", ")[2]}</p></div>'
    )


def pictures(folder: Path) -> str:
    """The pictures that the run left."""
    found = ""
    for path in [*sorted(folder.glob("samples-*.png")), folder / "trajectory.png"]:
        if path.is_file():
            packed, name = base64.b64encode(path.read_bytes()).decode(), html.escape(path.stem)
            found += (
                f'<figure><img src="data:image/png;base64,{packed}" alt="{name}">'
                f"<figcaption>{name}</figcaption></figure>"
            )
    return f'<div class="pictures">{found}</div>' if found else "<p>There are none.</p>"


# -------------------------------------------------------------------------------- what is measured


def worth(run: Run) -> str:
    """What samples and data were measured to be, each with the command that measures it again."""
    rows = [*of_training(run), *of_samples(run)]
    text, header = (
        heading("Measured"),
        ["samples", "calls", "seconds", *DISTANCES.values(), "command"],
    )
    known = [i for i, _ in enumerate(header) if any(row[i] is not None for row in rows)]
    if rows:
        text += f"<p>{measured(run, rows)}</p>" + table(
            [[row[i] for i in known] for row in rows], [header[i] for i in known]
        )
    likelihoods = list(of_likelihood(run))
    if likelihoods:
        text += table(likelihoods, ["likelihood", "samples", "mean", "unit", "command"])
    return text if rows or likelihoods else ""


def measured(run: Run, rows: Sequence[Sequence[Value]]) -> str:
    """What the numbers of the rows are."""
    frechet, sliced = (any(row[3 + i] is not None for row in rows) for i in range(2))
    if not (frechet or sliced):
        text = "No data are held out, so that nothing is said of the samples' distance to them."
    else:
        text = f"{FRECHET if frechet else 'S'}liced Wasserstein distance to held-out data"
        text += "; the first line is what as many real data have."
    if run.config.get("task"):
        text += " What was restored was made of the data's held-out images."
    said = any(row[-1] is not None for row in rows)
    return text + (" A command gives its line's numbers again." if said else "")


DISTANCES = {"frechet": "Frechet", "sliced": "sliced W2"}
FRECHET = "Frechet distance in the features of a small classifier trained on the spot, and s"


def line(row: Mapping[str, Any], name: str, said: str | None) -> list[Value]:
    """A row of the table, and its command."""
    took = row["seconds"] and max(0.01, round(row["seconds"], 2))  # as the terminal has it
    return [html.escape(name), row["nfe"], took, *(row[k] for k in DISTANCES), typed(said)]


def typed(said: str | None) -> str | None:
    """A command in one line."""
    return f'<code class="line">{html.escape(said)}</code>' if said else None


def of_training(run: Run) -> Iterator[list[Value]]:
    """The table that the run ended with."""
    path = run.folder / "table.json"
    if not path.is_file():
        return
    config, n = run.config, counted(run)
    solvers, seed = config["evaluate"].get("solvers") or {}, config["evaluate"]["seed"]
    same = {"run": str(run.folder), "n": n, "walk": config["walk"], "seed": seed}
    for row in read_json(path):
        said = None
        if row["solver"] in solvers and n and not config.get("task"):
            made = {**same, "solver": solvers[row["solver"]], "nfe": row["budget"]}
            said = command("sample", made, GROUPS["sample"])
        yield line(row, row["solver"], said)


def counted(run: Run) -> int:
    """How many samples were measured where the run ended; 0 where nothing was."""
    path = run.folder / REFERENCE
    if not path.is_file():
        return 0
    quality = Quality.of(read_tensors(path)[0])
    return min(SAMPLES, *(each.projections.shape[1] for each in (quality.train, quality.real)))


def of_samples(run: Run) -> Iterator[list[Value]]:
    """What ``sdegen-sample`` has measured."""
    for path in sorted((run.folder / "samples").glob("*/result.json")):
        found = read_json(path)
        config = {**found["config"], "run": str(run.folder)}
        yield line(
            found["rows"][-1], path.parent.name, command("sample", config, GROUPS["sample"])
        )


def of_likelihood(run: Run) -> Iterator[list[Value]]:
    """What ``sdegen-evaluate`` has measured."""
    for path in sorted(run.folder.glob("*/result.json")):
        found = read_json(path)
        config = {**found["config"], "run": str(run.folder)}
        said = command("evaluate", config, GROUPS["evaluate"])
        for name, mean in found["mean"].items():
            if name != "nfe":
                yield [
                    f"{path.parent.name}, {name}",
                    found["n"],
                    mean["mean"],
                    found["unit"],
                    typed(said),
                ]
