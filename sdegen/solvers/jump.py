"""Flow maps: a network that is told where it goes takes a step of any length in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from sdegen.model.denoiser import Denoiser
from sdegen.sde.level import Level
from sdegen.solvers.equation import Reverse, renoise
from sdegen.solvers.solver import Solver, Step
from sdegen.solvers.traits import Traits

JUMP = "jump"
"""The condition by which a network is told how far it goes."""


def going(model: Denoiser, t: Level, s: Level) -> Denoiser:
    """The model told that it goes from level t to level s: ``jump`` = tau_t - tau_s, a number for
    all or one a sample (b,), tau = sigma / (alpha + sigma).

    ValueError for a model that is given no conditions.
    """
    if not hasattr(model, "given"):
        raise ValueError(
            "A flow map is a model whose network is told where it goes, but "
            f"{type(model).__name__} takes no conditions: use a ScoreModel of a network with "
            "numbers=['jump']."
        )
    far = t.tau - s.tau
    told: Denoiser = model.given(**{JUMP: far}) if far.ndim else model.given({JUMP: far})
    return told


@dataclass(frozen=True)
class Jump(Solver):
    """The flow map of a network that was trained to be one:  x_s = alpha_s x0 + sigma_s eps.

    On any linear SDE y = x / (alpha + sigma) moves as  dy/dtau = eps - x0,  so that the map from t
    to s is  y_s = y_t + (tau_s - tau_t) u  with the mean u of that velocity on the way: DDIM's
    step of a mean prediction, u = epsbar - x0bar, which the network makes that is also told
    ``jump`` = tau_t - tau_s. At s = t it is the state itself, whatever the network says.

    Consistency models (Song et al. 2023b) go to t_min alone; shortcut models (Frans et al. 2025)
    and MeanFlow (Geng et al. 2025) anywhere; several steps of a consistency model are this
    solver on a walk that climbs (``walks.multistep``). A model of a network that is not told is
    sampled by ``DDIM``.
    """

    traits = Traits(
        order=0,
        needs_marginals=True,
        follows_flow=False,
        why_not_linear="its network is told where each step ends",
        arrives=True,
    )
    presets: ClassVar = {}  # for flow maps alone, where catalogues hold what takes every model

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One jump, of any length."""
        return Step(renoise(going(p.model, t, s)(x, t), s, 1.0, 0.0))


@dataclass(frozen=True)
class Student(Solver):
    """DDIM on the times that a student was trained for, and on no others.

    Salimans & Ho (2022): a network that takes a teacher's several steps in one has learned them
    for one walk alone. ValueError where it is asked for another walk or budget, or by ``denoise``
    where that ends.
    """

    times: tuple[float, ...]
    presets: ClassVar = {}  # of one model's own making

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", tuple(map(float, self.times)))

    @property
    def traits(self) -> Traits:
        """One call a step, on its own walk."""
        return Traits(
            order=0,
            needs_marginals=True,
            follows_flow=False,
            own_walk=self.times,
            own_levels=True,
        )

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """DDIM's step."""
        return Step(renoise(p.model(x, t), s, 1.0, 0.0))
