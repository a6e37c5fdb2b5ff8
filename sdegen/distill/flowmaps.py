"""Flow maps: networks that are told where they go, trained to get there in one call.

A map from t to s is the mean velocity u(x, t, s) on the way (see ``straight``); its network has
``numbers=["jump"]`` and is sampled by ``Jump``. Consistency models learn the maps to t_min,
shortcut models and MeanFlow those to anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdegen import walks
from sdegen.checks import number, whole
from sdegen.distill.straight import both, ends, heun, moved, straightened, times_at, velocity
from sdegen.distill.teaching import as_given, refuse_teacher
from sdegen.losses.dsm import check_data, regression
from sdegen.losses.weightings import straight
from sdegen.model.denoiser import Denoiser
from sdegen.sde.level import Level, expand
from sdegen.sde.process import refuse_learned
from sdegen.solvers.equation import Reverse
from sdegen.solvers.jump import Jump, going
from sdegen.solvers.solver import Solver

Distance = Callable[[Tensor], Tensor]
"""Of differences (b, d), one for each sample (b,)."""


def squared(off: Tensor) -> Tensor:
    """The mean square."""
    return off.square().mean(1)


@dataclass(frozen=True)
class PseudoHuber:
    """(sqrt(|off|^2 + c^2) - c) / sqrt(d), c = scale sqrt(d).

    Song & Dhariwal (2024), sec. 3.3.
    """

    scale: float = 0.00054

    def __call__(self, off: Tensor) -> Tensor:
        """The distance of each sample (b,)."""
        d = off.shape[1]
        c = self.scale * math.sqrt(d)
        length: Tensor = (off.square().sum(1) + c**2).sqrt()
        return (length - c) / math.sqrt(d)


@dataclass(frozen=True)
class Growing:
    """How many levels a consistency loss has in its k-th step: ``first``, doubled at equal
    intervals of ``over`` steps, up to ``last``.  Song & Dhariwal (2024), sec. 3.4."""

    first: int = 10
    last: int = 1280
    over: int = 1000

    def __post_init__(self) -> None:
        if not 1 <= whole("first", self.first) <= whole("last", self.last):
            raise ValueError(f"first <= last, but they are {self.first} and {self.last}.")
        whole("over", self.over)

    def __call__(self, step: int) -> int:
        """Levels at a step, counted from 0."""
        doublings = math.floor(math.log2(self.last / self.first)) + 1
        every = max(1, self.over // doublings)
        return int(min(self.first * 2 ** min(step // every, doublings), self.last))


@contextmanager
def same_draws(x: Tensor) -> Iterator[None]:
    """Draws inside are made again behind it: one dropout for student and target."""
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


@dataclass(frozen=True, eq=False)
class Consistency:
    """The loss of consistency models: two neighbours of a path have one end.  Song et al. (2023b).

        d(f(x_t, t), sg f(x_u, u)) / (tau_t - tau_u),   f the map to t_min

    on a grid of ``steps`` levels t, u the next below. Without a teacher x_u has x_t's own x0 and z
    (consistency training, Song & Dhariwal 2024: the target is the student itself, without an
    average); with one it is where a step of ``stepper`` on the teacher's flow leads (consistency
    distillation, alg. 2).

    stepper:  of the teacher's flow; None: the trapezoidal rule in tau, finite at either end.
    steps:    a number, or ``Growing(...)`` of the training's step.
    grid:     of the levels, (sde, n) -> times: by default equal in tau.
    distance: of the ends.
    share:    of the batch with s = t, which learn the flow, the teacher's where there is one, as
              the loss of Kim et al. (2024) has: without it nothing but the end itself holds what a
              network says of short ways, and its errors there are handed up to all longer ones.

    On linear networks and Gaussian data the minimum is the ``steps``-step DDIM sample of the grid,
    or the stepper's with a teacher: an error of first order in 1 / steps, or of the stepper's.
    """

    teacher: Denoiser | None = None
    stepper: Solver | None = None
    steps: int | Growing = field(default_factory=Growing)
    grid: walks.Grid = walks.straight
    distance: Distance = field(default_factory=PseudoHuber)
    share: float = 0.0
    step: int = 0

    def __post_init__(self) -> None:
        if not 0 <= number("share", self.share) <= 1:
            raise ValueError(f"share lies in [0, 1], but it is {self.share!r}.")

    def at(self, step: int) -> Consistency:
        """The loss of the training's step, counted from 0."""
        return replace(self, step=step)

    @property
    def solver(self) -> Jump:
        """What samples its students."""
        return Jump()

    def __call__(self, model: Any, x0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The loss (b,) of data x0 (b, *)."""
        check_data(x0)
        refuse_learned(model.sde, "Consistency")
        sde, b, device = straightened(model.sde, "Consistency"), len(x0), x0.device
        n = (
            self.steps(self.step)
            if isinstance(self.steps, Growing)
            else whole("steps", self.steps)
        )
        times = self.grid(sde, n).to(device)
        i = torch.randint(n, (b,), device=device, generator=generator)
        z = torch.randn(x0.shape, device=device, generator=generator, dtype=x0.dtype)
        begin, then, last = times[i], times[i + 1], times[-1].expand(b)
        far = (sde(begin).tau - sde(then).tau).to(x0)
        still = torch.zeros(b, dtype=torch.bool, device=device)
        if self.share:
            still = torch.rand(b, device=device, generator=generator) < self.share
            top, low = ends(sde)
            part = torch.rand(b, device=device, generator=generator, dtype=torch.float64)
            begin = torch.where(still, times_at(sde, low + (top - low) * part), begin)
        t, end = sde(begin), sde(torch.where(still, begin, last))
        x_t = sde.mix(x0, t, z)
        with torch.no_grad(), same_draws(x0):
            x_u, flow = sde.mix(x0, sde(then), z), z - x0
            if self.teacher is not None:
                refuse_teacher(self.teacher, model)
                teacher = as_given(self.teacher, model, device)
                if self.share:
                    x_u, flow = self.taught(teacher, x_t, begin, then, still)
                else:
                    x_u = self.step_of(teacher, x_t, t, sde(then))
            # Of all rows, so that dropout is the student's own.
            target = jumped(model, x_u, sde(then), sde(last))
        said = velocity(going(model, t, end), x_t, t)
        apart = self.distance((moved(x_t, t, end, said) - target).reshape(b, -1)) / far
        return torch.where(still, squared((said - flow).reshape(b, -1)), apart)

    def taught(
        self, teacher: Denoiser, x: Tensor, begin: Tensor, then: Tensor, still: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where the teacher's flow leads from times ``begin`` to ``then``, but for rows that are
        still, and what it is at ``begin``: it may be another than the data's, as reflow's is."""
        sde = straightened(teacher.sde, "Consistency")
        led, flow = x.clone(), velocity(teacher, x, sde(begin))
        goes = (~still).nonzero()[:, 0]
        if len(goes):
            t, u = sde(begin[goes]), sde(then[goes])
            led[goes] = self.step_of(teacher.take(goes), x[goes], t, u, flow[goes])
        return led, flow

    def step_of(
        self, teacher: Denoiser, x: Tensor, t: Level, u: Level, slope: Tensor | None = None
    ) -> Tensor:
        """Where a step on the teacher's flow leads, whose velocity at t may be known."""
        if self.stepper is None:
            return heun(teacher, x, t, u, slope)
        return self.stepper.step(Reverse(teacher, 0.0), x, t, u).x


def jumped(model: Any, x: Tensor, t: Level, s: Level) -> Tensor:
    """Where the map leads from level t to level s."""
    return moved(x, t, s, velocity(going(model, t, s), x, t))


@dataclass(frozen=True)
class Shortcut:
    """The loss of shortcut models: a jump is two half jumps.  Frans et al. (2025), alg. 1.

    A part ``share`` of the batch learns jumps of 2^-j of tau's way, j = 0 .. ``halvings`` - 1,
    from what the network itself says of their halves; the others learn the flow, jump = 0.
    """

    share: float = 0.25
    halvings: int = 7

    def __post_init__(self) -> None:
        if not 0 <= number("share", self.share) <= 1:
            raise ValueError(f"share lies in [0, 1], but it is {self.share!r}.")
        whole("halvings", self.halvings)

    @property
    def solver(self) -> Jump:
        """What samples its students."""
        return Jump()

    def __call__(self, model: Any, x0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The loss (b,) of data x0 (b, *)."""
        check_data(x0)
        refuse_learned(model.sde, "Shortcut")
        sde, b, device = straightened(model.sde, "Shortcut"), len(x0), x0.device
        z = torch.randn(x0.shape, device=device, generator=generator, dtype=x0.dtype)
        first, last = ends(sde)
        u = torch.rand(b, device=device, generator=generator, dtype=torch.float64)
        j = torch.randint(self.halvings, (b,), device=device, generator=generator)
        jumps = torch.rand(b, device=device, generator=generator) < self.share
        # A jump of size 2^-j begins at one of its multiples, from t_min on.
        size = torch.where(jumps, 2.0 ** -j.double(), 0.0)
        begin = torch.where(jumps, ((u / size).floor() + 1) * size, u)
        tau = last + (first - last) * begin
        t, s = (sde(times_at(sde, at)) for at in (tau, tau - (first - last) * size))
        x = sde.mix(x0, t, z)
        with torch.no_grad(), same_draws(x0):
            middle = sde(times_at(sde, tau - (first - last) * size / 2))
            one = velocity(going(model, t, middle), x, t)
            two = velocity(going(model, middle, s), moved(x, t, middle, one), middle)
            x0_bar, eps_bar = both(x, t, (one + two) / 2)
        keep = expand(jumps.to(x0), x0).bool()  # type: ignore[union-attr]
        x0_bar, eps_bar = torch.where(keep, x0_bar, x0), torch.where(keep, eps_bar, z)
        return regression(going(model, t, s), x, t, x0_bar, eps_bar, straight)


@dataclass(frozen=True)
class MeanFlow:
    """The loss of mean velocities, by their differential equation.  Geng et al. (2025), alg. 1.

        u(x, t, s) = (eps - x0) - (tau_t - tau_s) du/dtau,   du/dtau along dy/dtau = eps - x0

    with one forward-mode derivative, of that part of the batch which goes anywhere; the right side
    is a constant to the gradient. On every linear SDE, in its own tau: theirs is FlowSDE's.

    share: of the batch with s = t, which learn the flow.
    mean, std: tau_t and tau_s are the larger and the smaller of two logistic normals.
    power: the loss of a sample, the sum of squares e, is e / (e + 0.01)^power with a constant
           divisor.

    The network's attention runs in its plain form there, since the fused ones have no forward
    mode. Fast time embeddings make du/dtau large: give the model the label "tau".
    """

    share: float = 0.75
    mean: float = -0.4
    std: float = 1.0
    power: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= number("share", self.share) <= 1:
            raise ValueError(f"share lies in [0, 1], but it is {self.share!r}.")
        if not number("std", self.std) > 0:
            raise ValueError(f"MeanFlow's std must be positive, but it is {self.std!r}.")

    @property
    def solver(self) -> Jump:
        """What samples its students."""
        return Jump()

    def __call__(self, model: Any, x0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The loss (b,) of data x0 (b, *)."""
        check_data(x0)
        refuse_learned(model.sde, "MeanFlow")
        sde, b = straightened(model.sde, "MeanFlow"), len(x0)
        z = torch.randn(x0.shape, device=x0.device, generator=generator, dtype=x0.dtype)
        logits = torch.randn(2, b, device=x0.device, generator=generator, dtype=torch.float64)
        drawn = torch.sigmoid(self.mean + self.std * logits).clamp(*reversed(ends(sde)))
        still = torch.rand(b, device=x0.device, generator=generator) < self.share
        tau = drawn.amax(0)
        far = torch.where(still, 0.0, tau - drawn.amin(0))
        level = sde(times_at(sde, tau))
        u = velocity(model.given(jump=far), sde.mix(x0, level, z), level)
        target = z - x0
        if len(moving := (~still).nonzero()[:, 0]):
            of = [each[moving] for each in (x0, z, tau, far)]
            du = slope(model.take(moving), *of)
            target = target.index_add(0, moving, (-expand(of[-1], du) * du).to(target))
        off = (u - target).reshape(b, -1).square().sum(1)
        return off / (off.detach() + 0.01) ** self.power


@torch.no_grad()
def slope(model: Any, x0: Tensor, z: Tensor, tau: Tensor, far: Tensor) -> Tensor:
    """du/dtau (b, *) along the pair's path at alpha x0 + sigma z, where it goes, tau - far, kept:
    one forward-mode derivative, of which nothing is kept for a gradient."""
    sde = straightened(model.sde, "MeanFlow")
    t = times_at(sde, tau)
    at = sde(t)
    rate = (at.d_sigma * at.alpha - at.sigma * at.d_alpha) / (at.alpha + at.sigma) ** 2
    along = expand(at.d_alpha / rate, x0) * x0 + expand(at.d_sigma / rate, x0) * z

    def u(x: Tensor, t: Tensor, far: Tensor) -> Tensor:
        return velocity(model.given(jump=far), x, sde(t))

    with sdpa_kernel(SDPBackend.MATH):
        states = (sde.mix(x0, at, z), t, far)
        turned: tuple[Tensor, Tensor] = torch.func.jvp(  # type: ignore[assignment]
            u, states, (along, 1 / rate, torch.ones_like(far))
        )
    return turned[1]
