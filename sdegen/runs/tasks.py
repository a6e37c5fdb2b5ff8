"""Tasks of ``sdegen-sample``: held-out images, or a file's, restored or edited."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen.data import ArrayData, class_labels, gather
from sdegen.data.captions import words_in
from sdegen.data.parts import part
from sdegen.guidance import ddnm
from sdegen.losses import Degradation
from sdegen.metrics.restored import Restored
from sdegen.noise import Noise
from sdegen.runs.build import EDIT, EDITS, build, build_data, build_task, task_name
from sdegen.runs.editing import P2P, DiffEdit, Rewording
from sdegen.runs.folder import Run
from sdegen.runs.restoring import (
    DRAWS,
    Seen,
    Told,
    as_shown,
    columns_of,
    draw,
    images_in,
    restored,
    told_by,
    told_hole,
    with_known,
)
from sdegen.runs.settings import SampleSettings
from sdegen.sampling.plan import Plan
from sdegen.sde.process import linear


@dataclass(frozen=True)
class Job:
    """Images, and what is to be done with them: ``draws`` samples of each, one after another.

    seen: what is seen of them, None where they are edited.  inner, outer: how a model is told it,
    within and around its guidance.
    start: the time that they are noised to then.  labels: (m,), None without classes.
    """

    images: Tensor
    labels: Tensor | None
    draws: int
    seen: Seen | None
    inner: tuple[Told, ...]
    outer: tuple[Told, ...]
    start: float | None
    origin: str
    exact: bool = True
    originals: bool = True
    captions: tuple[str, ...] = ()
    """origin: where the images are from, in a few letters: a file's bytes, or the first of those
    held out, of which more begin with fewer.  exact: what is known is known without noise.
    originals: the images are what is to come out, and not as little as is seen of them.
    captions: the images' own."""

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.images) * self.draws

    def at(self, first: int, m: int) -> Tensor:
        """The places of the images of samples first to first + m - 1."""
        return torch.arange(first, first + m) // self.draws

    def model(self, model: Any, guide: Callable[[Any], Any], first: int, m: int) -> Any:
        """A model for these samples, guided, and told what is seen."""
        at = self.at(first, m)
        for told in self.inner:
            model = told(model, at)
        model = guide(model)
        for told in self.outer:
            model = told(model, at)
        return model

    def state(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of a state, of samples of a shape."""
        return tuple(shape)

    def noise(self, random: dict[str, Any]) -> dict[str, Any]:
        """The random numbers of ``solve``."""
        return random

    def check(self, plan: Plan) -> None:
        """Nothing is refused."""

    def begin(
        self, model: Any, start: Sequence[int], first: int, noise: Noise | None, how: Any
    ) -> tuple[Any, Any]:
        """The model of what ``solve`` starts from, and that: a shape, or images as noisy as the
        start is.

        (As ``resample`` has it, whose samples these are; they are solved here to be counted.)
        """
        if self.start is None:
            return model, start
        sde = linear(model.sde, "task=edit", "take a run on a LinearSDE")
        x, top = self.images[self.at(first, start[0])].to(model.device), sde(self.start)
        z = torch.randn_like(x)
        if noise is not None:
            z = noise.stream("resample")(x, top, sde(sde.t_min))
        return model, sde.mix(x, top, z)

    def parts(self, x: Tensor, first: int) -> dict[str, Tensor]:
        """Samples with what is known."""
        if self.seen is None or not self.exact:
            return {"x": x}
        return {"x": with_known(x, self.seen, self.at(first, len(x)))}

    def worth(self, x: Tensor) -> Restored | None:
        """What all samples are worth beside the images; None where nothing was restored, and
        where the images are not known."""
        known = self.seen is not None and self.originals
        return restored(x, self.seen, self.draws) if known and self.seen else None

    def draw(self, made: Mapping[str, Tensor], path: Path, title: str) -> None:
        """A picture of some images, what was seen of them, and what became of them."""
        first = "original" if self.originals else "given"
        columns = columns_of(made["x"], self.seen, self.draws)
        draw(path, title, self.images, columns, first=first)


def job_of(settings: SampleSettings, run: Run, chosen: Sequence[int]) -> Job | Rewording | None:
    """What the settings' task is for a run, None without one; chosen: how often each class comes
    where classes were named.

    ValueError for a task that the run cannot do, before anything runs.
    """
    trained = run.config.get("task") or None
    if not settings.task:
        if trained is not None and not run.config.get("adapter"):  # without a hint it is its base
            raise ValueError(
                f"The run was trained to restore, and generates nothing by itself: give its task, "
                f"task={task_name(trained)}."
            )
        return None
    ours = task_name(settings.task)
    if trained is not None and ours != task_name(trained):
        raise ValueError(
            f"The run was trained for task={task_name(trained)}, not for task={ours}: give "
            "its own task, or a run that was trained for none."
        )
    learned = None if trained is None else build_task(trained, settings.packages)
    free = () if learned is None else learned.free
    if trained is not None and (others := differing(trained, settings.task, free)):
        raise ValueError(
            f"The run was trained for another task={ours}: give {' '.join(others)}, as it was, or "
            "a run that was trained for none."
        )
    if trained is not None and settings.observation:
        raise ValueError(
            "The run was trained for its task, and its network sees what an observation would "
            "tell it: leave observation out, or take a run that was trained without a task."
        )
    if ours in EDITS and settings.observation:
        raise ValueError(
            f"An observation is of what a task hides, but task={ours} hides nothing: leave it out."
        )
    if ours in (P2P.__name__.lower(), DiffEdit.__name__.lower()):
        return reworded(settings, run)
    start = None
    if ours == EDIT:
        start = start_of(build(settings.task, settings.packages).start, run)
    task = None if ours == EDIT else built(settings)
    images, originals = images_of(settings, run, task)
    kept = images.x[0].numpy().tobytes()
    content = kept if settings.image is None else Path(settings.image).read_bytes()
    origin = hashlib.sha256(content).hexdigest()[:16]
    labels = labels_of(images, run, chosen)
    if start is not None:
        draws = settings.draws or 1
        return Job(images.x, labels, draws, None, (), (), start, origin, captions=images.captions)
    assert task is not None
    if task.numbers and not originals and settings.task.get("level") is None:
        raise ValueError(
            "Between the stages of a cascade there is as much noise as task.level says, up to "
            f"task.augment = {settings.task['augment']:g}: give it, as task.level=0.1."
        )
    # Noise between stages is a sample's, what a task hides an image's own.
    seed = settings.seed if task.numbers and isinstance(settings.seed, int) else 0
    seen = Seen.of(task, images, seed)
    inner: tuple[Told, ...] = () if trained is None else (seen.told,)
    outer: tuple[Told, ...] = () if seen.hole is None else (told_hole(seen),)
    if trained is None:
        outer = by_observation(settings, seen) or outer
    draws, observed = settings.draws or DRAWS, settings.observation
    if observed:
        seen = seen.through(noise_of(observed))
    exact = not observed or noise_of(observed) == 0
    how = labels, draws, seen, inner, outer, None, origin, exact, originals
    return Job(images.x, *how, images.captions)


def reworded(settings: SampleSettings, run: Run) -> Rewording:
    """Edits by another caption, as the settings say them.

    ValueError for images, or several samples of each, where there are none.
    """
    task = build(settings.task, settings.packages)
    images = None
    if isinstance(task, DiffEdit):
        if task.start is not None:
            start_of(task.start, run)
        if run.text is not None and settings.texts:
            images = described(settings, run)
    elif settings.image is not None:
        raise ValueError("task=p2p edits samples that it draws: leave image out.")
    if settings.draws not in (None, 1):
        raise ValueError(f"An edit by another caption is one, but draws = {settings.draws}.")
    found = Rewording.of(task, run, settings.texts, settings.n, images)
    if settings.image is None:
        return found
    content = hashlib.sha256(Path(settings.image).read_bytes()).hexdigest()[:16]
    return replace(found, origin=content)


def described(settings: SampleSettings, run: Run) -> Tensor:
    """The images of the settings' file, or held-out ones whose caption is the prompt, n at most;
    ValueError where there are none."""
    if settings.image is not None:
        return images_of(settings, run, None)[0].x
    _, test = build_data({**run.config, "packages": settings.packages})
    said = " ".join(words_in(settings.texts[0]))
    captions = getattr(test, "captions", ())
    found = [i for i, each in enumerate(captions) if " ".join(words_in(each)) == said]
    if not found:
        raise ValueError(
            f"No held-out image of the run has the caption {said!r}: give image=FILE, or the "
            "prompt of one that is there."
        )
    return gather(part(test, torch.tensor(found)), settings.n).x


def built(settings: SampleSettings) -> Degradation:
    """The settings' task, which hides something."""
    task = build_task(settings.task, settings.packages)
    assert task is not None
    return task


def differing(
    trained: Mapping[str, Any], asked: Mapping[str, Any], free: Sequence[str] = ()
) -> list[str]:
    """What a task must be told to be the one that a run was trained for, as overrides; free: what
    may differ."""
    mine = [name for name in {**trained, **asked} if name not in free]
    # A run that came before a setting is one without it: 0 and null are nothing.
    names = [name for name in mine if (trained.get(name) or None) != (asked.get(name) or None)]
    return [f"task.{name}={trained.get(name)}" for name in names]


def noise_of(observation: Mapping[str, Any]) -> float:
    """The std of what is seen."""
    return float(observation.get("std", 0.0))


def by_observation(settings: SampleSettings, seen: Seen) -> tuple[Told, ...]:
    """How a model that never saw the task is told, exactly where nothing else is said: by what is
    known around a hole, by projection elsewhere. ValueError where it cannot be."""
    if seen.A is None:
        raise ValueError(
            f"What task={task_name(settings.task)} shows is no linear function of the image, and "
            "the run was not trained for it: train one with sdegen-train and this task."
        )
    if settings.observation:
        observation = build(settings.observation, settings.packages)
        return (told_by(observation, seen, noise_of(settings.observation)),)
    return () if seen.hole is not None else (told_by(ddnm, seen, 0.0),)


def start_of(t: float, run: Run) -> float:
    """The time that images are noised to; ValueError for one that is not on the way."""
    sde = linear(run.model.sde, "An edit", "take a run on a LinearSDE")
    if not sde.t_min < t <= sde.T:
        raise ValueError(
            f"start lies in ({sde.t_min:g}, {sde.T:g}], the times of the run's "
            f"{type(sde).__name__}, but it is {t!r}."
        )
    return float(t)


def images_of(
    settings: SampleSettings, run: Run, task: Degradation | None
) -> tuple[ArrayData, bool]:
    """The images of the settings' file, or held-out ones, n at most, a smaller number the
    beginning of a larger one; and whether these are whole, not as small as a task makes them."""
    if settings.image is not None:
        path = Path(settings.image)
        x = images_in(path)
        whole = list(x.shape[-len(run.shape) :]) == list(run.shape)
        return ArrayData(as_shown(x, run.shape, path, task)[: settings.n]), whole
    _, test = build_data({**run.config, "packages": settings.packages})
    if test is None:
        raise ValueError("The run has no held-out data (data.test): give image=FILE.")
    return gather(test, settings.n), True


def labels_of(images: ArrayData, run: Run, chosen: Sequence[int]) -> Tensor | None:
    """The images' classes, those that were named or their own; None of a model without."""
    if not run.counts:
        return None
    if chosen:
        return class_labels(len(images), chosen)
    if not images.classes:
        raise ValueError(
            "The run's model takes a class, and the image has none: say which by classes=[...]."
        )
    return images.y
