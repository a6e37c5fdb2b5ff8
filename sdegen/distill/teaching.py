"""Distillation: students that take a teacher's several steps in one, or its two calls in one, or
that are smaller than it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from sdegen.checks import number, whole
from sdegen.distill.straight import both, mean_velocity, straightened, velocity
from sdegen.guidance.free import CFG
from sdegen.losses.dsm import Distance, check_data, regression
from sdegen.losses.times import Draw, Times, independent, uniform_time
from sdegen.losses.weightings import Weighting
from sdegen.model.denoiser import Denoiser
from sdegen.model.network import hidden_modules
from sdegen.sde.process import refuse_learned
from sdegen.solvers.jump import Student
from sdegen.walks.grids import Grid, log_snr
from sdegen.walks.walk import Walk


def refuse_teacher(teacher: Any, model: Any) -> None:
    """ValueError for a teacher of another SDE or of one that is learned, and for one that is not
    at rest."""
    if isinstance(model.sde, nn.Module) and teacher.sde is not model.sde:
        raise ValueError(
            f"{model.sde} is learned with its model, so that a student's states are not its "
            "teacher's: distil a model of an SDE that is fixed."
        )
    refuse_learned(model.sde, "Distillation")
    if teacher.sde != model.sde:
        raise ValueError(
            f"The teacher's states are those of {teacher.sde}, but the student's are of "
            f"{model.sde}: take the teacher's SDE."
        )
    networks = (each for each in held_in(teacher) if isinstance(each, nn.Module))
    if any(changes(part) for each in networks for part in each.modules()):
        raise ValueError(
            "The teacher is in training mode, in which its dropout or its batch norms make it "
            "another one at every call: teacher.eval() first, of a wrapper the model inside and "
            "what judges it."
        )


def changes(module: nn.Module) -> bool:
    """Whether a part of a network says other things in training than it does at rest."""
    kinds = nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm
    return module.training and isinstance(module, kinds) and getattr(module, "p", 1.0) > 0


@dataclass(frozen=True, eq=False)
class Progressive:
    """A loss of students that take ``inner`` DDIM steps of a teacher in one.  Salimans & Ho
    (2022), alg. 2.

    steps, grid: of the student, along grid(sde, steps) on the teacher's SDE. The teacher's are
               those of the same grid, ``inner`` to each; of a grid that does not hold its own
               halves equal in lam, or in t where lam is infinite at an end.
    weighting: of the squared error in eps; the paper's default, max(SNR, 1) on x0.
    distance:  of the error, the mean square where None (``Spectral``).

    With the target's mean velocity the student's n DDIM steps end where the teacher's inner * n
    do; it is sampled on this very walk, by ``solver``, and is a model of a flow alone. Its own
    students' teacher it is with ``inner=2`` and half the steps. ValueError for a teacher of
    another SDE or in training mode.
    """

    teacher: Denoiser
    steps: int
    inner: int = 2
    grid: Grid = log_snr
    weighting: str | Weighting = "truncated_snr"
    distance: Distance | None = None

    def __post_init__(self) -> None:
        whole("inner", self.inner), whole("steps", self.steps)
        if not isinstance(self.teacher, Denoiser):
            raise ValueError(f"A teacher is a model, but it is {self.teacher!r}.")
        straightened(self.teacher.sde, "Progressive")

    @cached_property
    def walk(self) -> Walk:
        """The student's."""
        try:
            return Walk(self.teacher.sde, self.grid(self.teacher.sde, self.steps))
        except ValueError as error:
            raise ValueError(
                f"The student's grid: {error} Its walk is grid=...: walks.straight has no lam."
            ) from None

    @property
    def solver(self) -> Student:
        """What samples the student."""
        return Student(tuple(self.walk.times.tolist()))

    @cached_property
    def times(self) -> Tensor:
        """Of the teacher's steps, (n, inner + 1), one row for each of the student's."""
        fine = self.grid(self.teacher.sde, self.steps * self.inner)
        if torch.allclose(fine[:: self.inner], self.walk.times, rtol=1e-9, atol=1e-12):
            rows = [
                fine[j : len(fine) - self.inner + j : self.inner] for j in range(self.inner + 1)
            ]
            return torch.stack(rows, dim=1)
        sde = self.walk.sde.reference  # type: ignore[attr-defined]
        t, s = self.walk.times[:-1, None], self.walk.times[1:, None]
        part = torch.linspace(0, 1, self.inner + 1, dtype=torch.float64)
        lam = sde(self.walk.times).lam
        inside = torch.lerp(t, s, part)
        if bool(lam.isfinite().all()):
            way = torch.lerp(lam[:-1, None], lam[1:, None], part)
            inside = sde.time(way).clamp(sde.t_min, sde.T)
        return torch.cat([t, inside[:, 1:-1], s], dim=1)

    def __call__(
        self, model: Denoiser, x0: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The loss (b,) of data x0 (b, *), at a random one of the student's levels each."""
        check_data(x0)
        refuse_teacher(self.teacher, model)
        device = x0.device
        times = self.times.to(device)
        i = torch.randint(len(times), (len(x0),), device=device, generator=generator)
        z = torch.randn(x0.shape, device=device, generator=generator, dtype=x0.dtype)
        levels = [model.sde(t) for t in times[i].unbind(1)]
        x = model.sde.mix(x0, levels[0], z)  # type: ignore[attr-defined]
        teacher = as_given(self.teacher, model, device)
        u = mean_velocity(teacher, x, levels)  # type: ignore[arg-type]
        x0_bar, eps_bar = both(x, levels[0], u)  # type: ignore[arg-type]
        target = x0_bar, eps_bar, self.weighting
        return regression(model, x, levels[0], *target, distance=self.distance)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class GuidedOnce:
    """A loss of students that are told a guidance scale w and say in one call what CFG says in
    two.  Meng et al. (2023), sec. 3.1.

    teacher: the model that CFG would guide.  without: as ``CFG`` has it.
    The scale is drawn, w uniform on [low, high], one a sample, and given to the student's network
    as the condition ``name`` (``numbers=[name]``). The paper's weight is this scale minus 1.
    distance: of the error, the mean square where None (``Spectral``).

    ValueError for a teacher of another SDE or in training mode.
    """

    teacher: Denoiser
    without: Mapping[str, Any]
    low: float = 1.0
    high: float = 4.0
    name: str = "w"
    weighting: str | Weighting = "truncated_snr"
    times: Times = uniform_time
    draw: Draw = independent
    distance: Distance | None = None

    @property
    def told(self) -> dict[str, float]:
        """What its students are told unless something else is said: the middle of the scales."""
        return {self.name: (self.low + self.high) / 2}

    def __post_init__(self) -> None:
        if not number("low", self.low) < number("high", self.high):
            raise ValueError(f"Scales lie between low < high, not {self.low!r} and {self.high!r}.")

    def __call__(self, model: Any, x0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The loss (b,) of data x0 (b, *)."""
        check_data(x0)
        refuse_teacher(self.teacher, model)
        sde = straightened(model.sde, "GuidedOnce")
        t, ratio = self.times(sde, self.draw(len(x0), x0.device, generator))
        z = torch.randn(x0.shape, device=x0.device, generator=generator, dtype=x0.dtype)
        w = torch.rand(len(x0), device=x0.device, generator=generator)
        w = self.low + (self.high - self.low) * w
        level = sde(t)
        x = sde.mix(x0, level, z)
        with torch.no_grad():
            guided = CFG(as_given(self.teacher, model, x0.device), w, self.without)
            target = both(x, level, velocity(guided, x, level))
        told = model.given(**{self.name: w})
        off = regression(told, x, level, *target, self.weighting, distance=self.distance)
        return ratio.to(x0) * off


@dataclass(frozen=True, eq=False)
class Matching:
    """A loss of students that say at every level what their teacher says, as one of a smaller
    network does.  Yang et al. (2023), section 4.2.

        w(t) distance(eps - eps_teacher),    at x_t = alpha x0 + sigma z

    distance: of the error, the mean square where None; with ``Spectral()`` what is faint in the
    teacher's x0 counts for more.  The minimum is the teacher, whatever the distance.

    ValueError for a teacher of another SDE or in training mode.
    """

    teacher: Denoiser
    weighting: str | Weighting = "sigma2"
    times: Times = uniform_time
    draw: Draw = independent
    distance: Distance | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.teacher, Denoiser):
            raise ValueError(f"A teacher is a model, but it is {self.teacher!r}.")

    def __call__(
        self, model: Denoiser, x0: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The loss (b,) of data x0 (b, *)."""
        check_data(x0)
        refuse_teacher(self.teacher, model)
        sde = straightened(model.sde, "Matching")
        t, ratio = self.times(sde, self.draw(len(x0), x0.device, generator))
        z = torch.randn(x0.shape, device=x0.device, generator=generator, dtype=x0.dtype)
        level = sde(t)
        x = sde.mix(x0, level, z)
        with torch.no_grad():
            teacher = as_given(self.teacher, model, x0.device)
            target = both(x, level, velocity(teacher, x, level))
        off = regression(model, x, level, *target, self.weighting, distance=self.distance)
        return ratio.to(x0) * off


def as_given(teacher: Any, model: Any, device: torch.device) -> Any:
    """The teacher given what the student was, beside what it has itself, on the student's device.

    A network moves there once and stays: where a loss is taken is known only by its data, as each
    of several processes has a device of its own.

    ValueError for a teacher that takes no conditions where the student was given some.
    """
    parts = list(held_in(teacher))
    for each in parts:
        if isinstance(each, nn.Module):
            places = {own.device for own in chain(each.parameters(), each.buffers())}
            if places - {device}:
                each.to(device)
    if any(isinstance(each, Tensor) and each.device != device for each in parts):
        teacher = teacher.with_values(lambda value: value.to(device))
    conditions: dict[str, Any] = dict(getattr(model, "conditions", {}))
    if not conditions:
        return teacher
    if not hasattr(teacher, "given"):
        raise ValueError(
            f"The student was given {', '.join(conditions)}, but its teacher, a "
            f"{type(teacher).__name__}, takes no conditions."
        )
    shared = {name: conditions.pop(name) for name in model.shared}
    return teacher.given(shared, **conditions)


def held_in(part: Any) -> Iterator[nn.Module | Tensor]:
    """The networks of a model and the tensors that it was given: its own, and those in what
    wrappers hold, models, judges and functions."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, nn.Module):
        yield part
        yield from held_in(getattr(part, "conditions", None))
    elif isinstance(part, Mapping | list | tuple):
        for each in part.values() if isinstance(part, Mapping) else part:
            yield from held_in(each)
    elif isinstance(part, Denoiser) or (is_dataclass(part) and not isinstance(part, type)):
        yield from held_in(vars(part))
    elif callable(part):
        yield from hidden_modules(part)
