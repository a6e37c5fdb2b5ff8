"""Samples of a finished run, beside it: the numbers, a picture, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sdegen.checks import warn
from sdegen.data import class_labels
from sdegen.files import claim, locked, write_json
from sdegen.metrics.quality import Quality, Row, row_of
from sdegen.metrics.restored import Restored
from sdegen.model.truncated import truncated_model
from sdegen.noise import Brownian, Noise, Seeded
from sdegen.runs.bars import pace
from sdegen.runs.build import build, build_data
from sdegen.runs.chunks import SAMPLES, Chunk, Dealt, Job, Shelf, alone, among, gathered
from sdegen.runs.coders import Decoded
from sdegen.runs.compare import as_json, timed_solve, value_of
from sdegen.runs.editing import Rewording
from sdegen.runs.exports import EXPORTS, refuse_export
from sdegen.runs.folder import (
    Run,
    device_of,
    digest,
    generating,
    in_memory,
    load_run,
    of_data,
    quality_of,
)
from sdegen.runs.guiding import guide_of
from sdegen.runs.pictures import picture, shown
from sdegen.runs.ranks import ranks
from sdegen.runs.settings import SampleSettings, record
from sdegen.runs.tasks import Job as Task
from sdegen.runs.tasks import job_of
from sdegen.runs.telling import Prompts
from sdegen.sampling.march import Solution
from sdegen.sampling.plan import Plan
from sdegen.sampling.watch import Watch, progress
from sdegen.solvers.backends import TorchDiffEq
from sdegen.solvers.solver import Solver, arrived

HOW_MANY = (
    "run",
    "name",
    "n",
    "batch_size",
    "quality",
    "formats",
    "objective",
    "device",
    "devices",
)
"""Settings in which samples of one folder may differ."""

WHICH = ("step", "ema", "ema_std")
"""Settings that say which weights are meant: what they are is compared, by their digest."""


class Sampled(NamedTuple):
    """The table's rows, the folder that holds everything, why the solver was chosen where one
    was, the number that was asked for, and what restored images are worth."""

    rows: list[Row]
    folder: Path
    choice: Any
    value: float | None
    restored: Restored | None = None


def sample_run(settings: SampleSettings, say: Callable[[str], None]) -> Sampled | None:
    """Load a run's weights, sample, and write samples, picture and result into a folder of their
    own.

    Samples are written before anything else is tried, chunk by chunk; what is there already is
    not made again. They are measured if ``quality`` says so; where that cannot be, a sentence
    says why.

    None of a process that helps another one, where a launcher has started several.
    """
    team = ranks()
    if team is not None and settings.devices > 1:
        raise ValueError(
            f"devices={settings.devices} starts processes, but {team.world} have been started "
            "together: leave devices out."
        )
    device = device_number(settings.device, team.local if team else 0)
    device_number(settings.device, settings.devices - 1)
    which = settings.weights, settings.step, settings.ema, settings.ema_std
    run = shortened(load_run(Path(settings.run), settings.packages, device, *which), settings)
    if run.config.get("coder") and settings.task:
        of_data(run, "A task")
    refuse_export(settings.formats, list(Decoded.of(run, settings.packages, device).shape))
    folder = run.folder / "samples" / settings.title
    if team is not None and team.rank:
        todo, (how, shelf) = team.share()
        make(Maker(settings, run, how), shelf, team.part(todo))
        team.wait()
        return None
    maker = Maker(settings, run)
    claim(folder)
    with locked(folder):
        if settings.seed is None:  # none of them could be made again
            (folder / SAMPLES).unlink(missing_ok=True)
        shelf = Shelf(folder, record(settings), alike(settings, run, maker))
        n, size = maker.n, settings.batch_size
        dealt: Dealt = alone
        if team is not None:
            dealt = team.dealer((maker.how, shelf))
        elif settings.devices > 1:
            dealt = among(settings.devices, partial(fill, settings, maker.how, shelf))
        several, chunks = team.world if team else settings.devices, -(-n // size)
        if several > chunks:
            warn(
                f"n={n} are {chunks} chunk{'s' * (chunks > 1)} of batch_size={size}, fewer than "
                f"the {several} processes: give batch_size={-(-n // several)} to use them all."
            )
        maker.watch = (
            progress(desc="sampling", leave=False, mininterval=pace()) if n <= size else None
        )
        return finished(settings, run, maker, gathered(shelf, n, size, maker, dealt), say)


def alike(settings: SampleSettings, run: Run, maker: Maker) -> dict[str, Any]:
    """What all samples of one folder have in common."""
    config = record(settings)
    same = {k: v for k, v in config.items() if k not in HOW_MANY and k not in WHICH}
    if couples(maker.how["solver"]):
        same["batch_size"] = settings.batch_size
    if settings.texts:
        same["prompts"] = settings.texts
    same["weights"] = f"{settings.weights}, {digest(run)}"
    return same | ({"images": maker.job.origin} if maker.job else {})


def finished(
    settings: SampleSettings, run: Run, maker: Maker, chunk: Chunk, say: Callable[[str], None]
) -> Sampled:
    """What is left beside all samples: files for other programs, result and pictures."""
    made, job, folder = chunk.tensors, maker.job, run.folder / "samples" / settings.title
    solution = Solution(made["x"], made["nfe"], made["status"])
    good, calls = arrived(solution.status), int(solution.nfe.max())
    y = made["y"] if run.counts or settings.texts else None
    for name in settings.formats:
        EXPORTS[name](solution.x, y, good.nonzero().flatten().tolist(), folder)
    quality = reference(settings, run, say) if settings.quality else None
    row = row_of(settings.title, settings.nfe, solution, chunk.seconds, quality)
    rows = [quality.floor(maker.n), row] if quality else [row]
    found = job.worth(solution.x) if job else None
    result = {"config": record(settings), "step": run.step, "rows": as_json(rows)}
    result |= {"restored": asdict(found)} if found else {}
    write_json(folder / "result.json", result)
    title = f"{settings.title}, {calls} NFE"
    names = settings.texts or run.names
    picture(shown(solution.x, y, names), folder / "samples.png", title)
    if job:
        job.draw(made, folder / "images.png", title)
    return Sampled(rows, folder, maker.choice, value_of(rows, settings.objective), found)


def couples(solver: Any) -> bool:
    """Whether a solver's samples depend on the batch around them: steps or norms of all."""
    shared = getattr(solver, "per_sample", None) is False
    norms = getattr(getattr(solver, "corrector", None), "norms", None) == "batch"
    theirs = isinstance(solver, TorchDiffEq) and solver.traits.adaptive
    return shared or norms or theirs


class Maker:
    """Makes samples of a run, some at a time: sample i has its own stream and label, whatever
    the chunk it is in.

    A chooser is asked once, for the first of them.  how: what another maker found, its ``how``.
    watch: called at every step, as ``solve`` does.
    """

    watch: Watch | None = None

    def __init__(
        self, settings: SampleSettings, run: Run, how: dict[str, Any] | None = None
    ) -> None:
        self.settings, self.run, self.choice = settings, run, None
        chosen = numbers_of(settings.classes, run)
        self.decoded = Decoded.of(run, settings.packages, str(run.model.device))
        self.job = job_of(settings, run, chosen if settings.classes else ())
        self.prompts = prompts_of(settings, run, self.job)
        self.n = self.job.n if self.job else settings.n * (len(settings.texts) or 1)
        self.shape = self.job.state(run.shape) if self.job else tuple(run.shape)
        self.labels = None
        if self.job and self.job.labels is not None:
            self.labels = self.job.labels.repeat_interleave(self.job.draws)
        elif chosen:
            self.labels = class_labels(self.n, chosen)
        self.guide = guide_of(settings.guidance, run, settings.packages)
        if settings.seed is None:  # a new process's generator begins as every other's
            torch.seed()
        if how is not None:
            self.how = how
            return
        solver, packages = build(settings.solver, settings.packages), settings.packages
        self.how = {
            "solver": solver,
            "walk": build(settings.walk, packages) or None,
            "steps": settings.steps,
            "nfe": settings.nfe,
            "eta": settings.eta,
            "denoise": settings.denoise,
        }
        if self.job and self.job.start is not None:
            self.how["t"] = self.job.start
        size = min(self.n, settings.batch_size)
        # What cannot be solved is refused here, before there is a folder.
        start = (size, *self.shape)
        plan = Plan.of(self.model(0, size), start, **self.how, **self.noise(0, size))
        if self.job:
            self.job.check(plan)
        self.choice = plan.choice
        if not isinstance(solver, Solver):
            self.how |= {"solver": plan.solver, "walk": plan.walk, "steps": None, "nfe": None}

    def __call__(self, first: int, m: int) -> Chunk:
        """Samples first to first + m - 1."""
        model, random = self.model(first, m), self.noise(first, m)
        start: Any = (m, *self.shape)
        if self.job:
            model, start = self.job.begin(model, start, first, random.get("noise"), self.how)
        solution, seconds = timed_solve(model, start, watch=self.watch, **self.how, **random)
        x = solution.x
        made = self.job.parts(x, first) if self.job else {"x": self.decoded(x)}
        made |= {"nfe": solution.nfe, "status": solution.status}
        if self.labels is not None:
            made["y"] = self.labels[first : first + m]
        if self.prompts is not None:
            made["y"] = self.prompts.numbers(m, first)
        return Chunk({name: tensor.cpu() for name, tensor in made.items()}, seconds)

    def model(self, first: int, m: int) -> Any:
        """The model, with the labels of these samples where it takes labels, or their texts."""
        model = self.run.model
        if self.prompts is not None:
            model = self.prompts.given(model, m, first)
        if self.labels is not None:
            model = model.given(y=self.labels[first : first + m].to(model.device))
        if self.job is None:
            return self.guide(model)
        return self.job.model(model, self.guide, first, m)

    def noise(self, first: int, m: int) -> dict[str, Any]:
        """The random numbers of these samples, as the job has them."""
        random = self.seeded(first, m)
        return self.job.noise(random) if self.job else random

    def seeded(self, first: int, m: int) -> dict[str, Any]:
        """The random numbers of these samples, as ``solve`` takes them."""
        seed, solver = self.settings.seed, self.how["solver"]
        if seed is None:
            return {}
        if isinstance(seed, list):
            return {"seed": seed[first : first + m]}
        needs_path = isinstance(solver, Solver) and solver.traits.needs_path
        noise: Noise = Seeded(seed, first)
        if needs_path:
            noise = Brownian(seed, self.run.model.sde.T, first)
        return {"noise": noise}


def fill(
    settings: SampleSettings, how: dict[str, Any], shelf: Shelf, k: int, part: list[Job]
) -> None:
    """Of process k beside the first: make its jobs and put them on the shelf."""
    device = device_number(settings.device, k)
    which = settings.weights, settings.step, settings.ema, settings.ema_std
    run = shortened(load_run(Path(settings.run), settings.packages, device, *which), settings)
    make(Maker(settings, run, how), shelf, part)


def shortened(run: Run, settings: SampleSettings) -> Run:
    """A run whose model is sampled from ``truncate`` on, where that is set.

    ValueError for a time that is not within the SDE's, a task, a student, which knows its own
    steps alone, and a model of latents.
    """
    if settings.truncate is None:
        return run
    if settings.task:
        raise ValueError("truncate is of samples from noise, but a task begins with images.")
    of_data(generating(run, "truncate"), "truncate")
    data, _ = build_data({**run.config, "packages": settings.packages})
    return replace(run, model=truncated_model(run.model, in_memory(data).x, settings.truncate))


def make(maker: Maker, shelf: Shelf, part: list[Job]) -> None:
    """Samples of some jobs, on the shelf."""
    for first, m in part:
        shelf.put(first, maker(first, m))


def device_number(device: str, k: int) -> str:
    """The device of process k; ValueError where there is none."""
    kind = device_of(device)
    if kind.type == "cpu":
        return "cpu"
    number, count = (kind.index or 0) + k, torch.cuda.device_count()
    if number >= count:
        raise ValueError(
            f"devices={k + 1} from {kind} on would be up to cuda:{number}, but there are {count}."
        )
    return f"{kind.type}:{number}"


def numbers_of(classes: list[int | str] | None, run: Run) -> list[int]:
    """How often each class is to come: as in the training data, or the chosen ones alike.

    ValueError for classes that there are none of, and of a run without classes.
    """
    if classes is None:
        return run.counts
    if not run.counts:
        raise ValueError(f"classes={classes}, but the run's model takes no class: leave it out.")
    names = list(run.names) or [str(k) for k in range(len(run.counts))]
    for each in classes:
        if str(each) not in names:
            raise ValueError(f"There is no class {each!r}: the run has {', '.join(names)}.")
    return [int(name in map(str, classes)) for name in names]


def prompts_of(settings: SampleSettings, run: Run, job: Task | Rewording | None) -> Prompts | None:
    """The texts of samples: those that were asked for, of images one after another; or captions,
    the images' own where there are some, else the training data's. None of a run that takes none.

    ValueError for a run that takes no text and is asked for one, a text that cannot be told,
    images without captions of which nothing is said, and more texts than images.
    """
    texts = settings.texts
    if run.text is None:
        if texts:
            raise ValueError(
                f"prompt={texts[0]!r}, but the run's model takes no text: train one with "
                "text=words and data that have captions, or leave it out."
            )
        return None
    if not isinstance(job, Task):
        return Prompts.of(run.text, texts or run.captions)
    if not (said := texts or job.captions):
        raise ValueError(
            "The run's model takes a text, and the images have no captions: give prompt=..., or "
            "prompts=FILE with one for each image."
        )
    if len(said) > len(job.images):
        raise ValueError(
            f"Each image is told one text, but of {len(said)} texts there are only "
            f"{len(job.images)} images: give as many or fewer."
        )
    return Prompts.of(run.text, said, job.draws)


def reference(settings: SampleSettings, run: Run, say: Callable[[str], None]) -> Quality | None:
    """What samples of the run are measured by; None, and why, where it cannot be had."""
    try:
        return quality_of(run.folder, {**run.config, "packages": settings.packages})
    except (ValueError, OSError) as error:
        say(f"The samples are not measured: {error}")
        return None
