"""Singlestep exponential integrators: values at points inside the step, nothing remembered."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from sdegen.checks import one_of, whole
from sdegen.sde.level import Level, expand
from sdegen.sde.process import LinearSDE, on_reference
from sdegen.solvers.equation import Reverse
from sdegen.solvers.exponential import (
    DataForm,
    Form,
    FormName,
    NoiseForm,
    advance,
    form_of,
    lagrange,
    middle,
)
from sdegen.solvers.solver import Preset, Solver, Step
from sdegen.solvers.traits import Traits, exponential

SkipType = Literal["logSNR", "time_uniform", "time_quadratic"]
"""Equal distances of lam, t or sqrt t, by the names that they have in dpm-solver's code."""

StageNoise = Literal["path", "independent"]
"""What stages see of a step's noise: one Brownian path, or each a draw of its own from the step's
beginning on."""


def between(sde: LinearSDE, t: Level, s: Level, c: float, skip: SkipType) -> Level:
    """The level at the part c of the way from t to s in lam, t or sqrt t.

    lam is the reference's: a network is asked at one time for all coordinates.
    """
    if skip == "logSNR":
        first, last = on_reference(sde, t).lam, on_reference(sde, s).lam
        return sde(sde.reference.time(first + c * (last - first)))
    if skip == "time_uniform":
        return sde(torch.lerp(t.t, s.t, c))
    return sde(torch.lerp(t.t.sqrt(), s.t.sqrt(), c) ** 2)


def check_skip(skip: str) -> None:
    """Refuse an unknown one."""
    one_of(skip, "skip_type", dict.fromkeys(get_args(SkipType)))


class ExponentialRK(Solver):
    """Exponential Runge-Kutta: stages at lam_t + c h, each reached with the values before it.

    Where eta > 0 every piece between two stages has a noise of its own, and a later stage carries
    that of the earlier: one path, from any source of noise.
    """

    stage_noise: StageNoise = "path"

    @property
    @abstractmethod
    def nodes(self) -> tuple[float, ...]:
        """Where in lam the stages lie, as parts of the step, the first at 0 left out."""

    @property
    def skip_type(self) -> SkipType:
        """What the nodes are parts of in lam's place."""
        return "logSNR"

    @property
    @abstractmethod
    def form(self) -> Form:
        """The prediction that is taken for a polynomial."""

    @abstractmethod
    def tableau(self, p: Reverse, stops: Sequence[Level]) -> list[list[Tensor]]:
        """Weights of the values so far for reaching each stop but the first: t, stages, s."""

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step."""
        assert isinstance(p.sde, LinearSDE)
        form = self.form
        stops = [t, *(between(p.sde, t, s, c, self.skip_type) for c in self.nodes), s]
        values: list[Tensor] = []
        noise: Tensor | float = 0.0
        x_m = x
        for (r, m), weights in zip(pairwise(stops), self.tableau(p, stops), strict=True):
            values.append(form.view(p.model(x_m, r)))
            if p.noisy and self.stage_noise == "independent":
                source = p.noise if m is s else p.noise.stream(f"stage {len(values)}")
                noise = expand(form.std(p, t, m), x) * source(x, t, m)
            elif p.noisy:
                fresh = expand(form.std(p, r, m), x) * p.noise(x, r, m)
                noise = expand(form.carry(p, r, m), x) * noise + fresh
            x_m = advance(p, form, x, t, m, weights, values) + noise
        return Step(x_m)


@dataclass(frozen=True)
class Singlestep(ExponentialRK):
    """Exponential Runge-Kutta of order 2 or 3 with nodes of your choice.

    order:      stages, and the order of convergence.
    nodes:      where in lam, as parts of the step: order - 1 numbers rising between 0 and 1; by
                default (1/2,) and (1/3, 2/3).
    prediction: what is taken for a polynomial, "x0", "eps" or "F", as in ``Multistep``,
                and ``sigma_data``.

    The last line is exact for polynomials of degree order - 1. With three stages the middle one's
    weight is chosen so that the first one's error cancels: the condition of Hochbruck & Ostermann
    (2005), sec. 5.1; with nodes ending at 2/3 there is next to nothing to cancel, and it is
    DPM-Solver-3's.
    """

    order: int = 3
    nodes: tuple[float, ...] = ()
    prediction: FormName = "x0"
    sigma_data: float | None = None
    presets: ClassVar = {
        "singlestep_2": Preset({"order": 2}, "exponential Runge-Kutta, nodes 0, 1/2"),
        "singlestep": Preset({}, "exponential Runge-Kutta, nodes 0, 1/3, 2/3"),
        "singlestep_eps": Preset({"prediction": "eps"}, "exponential Runge-Kutta in eps"),
        "singlestep_f": Preset({"prediction": "F"}, "exponential Runge-Kutta in F"),
    }

    def __post_init__(self) -> None:
        whole("Singlestep's order", self.order, 2, 3)
        form_of(self.prediction, self.sigma_data)
        default = (1 / 2,) if self.order == 2 else (1 / 3, 2 / 3)
        object.__setattr__(self, "nodes", tuple(self.nodes) or default)
        rising = all(a < b for a, b in pairwise((0.0, *self.nodes, 1.0)))
        if len(self.nodes) != self.order - 1 or not rising:
            raise ValueError(
                f"Singlestep of order {self.order} has {self.order - 1} nodes that rise strictly "
                f"between 0 and 1, but they are {self.nodes}."
            )

    @property
    def traits(self) -> Traits:
        """One network call a stage."""
        return exponential(self.order, calls=self.order)

    @property
    def form(self) -> Form:
        """That of the prediction."""
        return form_of(self.prediction, self.sigma_data)

    def tableau(self, p: Reverse, stops: Sequence[Level]) -> list[list[Tensor]]:
        """Exact weights, but for the middle stage of three."""
        form, (t, a, *_) = self.form, stops
        first = [form.total(p, t, a)]
        last = lagrange(p, form, stops[:-1], t, stops[-1])
        if len(stops) == 3:
            return [first, last]
        b = stops[2]
        # INT density (lam - lam_t) up to a stage is what x misses there of a slope in Q. By dQ/dx
        # the network makes it an error of Q, and what is nearly the same at both stages, and on
        # every SDE, is dQ/dy in y = x / alpha: hence each weight over its own alpha.
        slope_a, slope_b = (lagrange(p, form, [t, a], t, m)[1] for m in (a, b))
        inner = slope_b + (last[1] / a.alpha) / (last[2] / b.alpha) * slope_a
        return [first, [form.total(p, t, b) - inner, inner], last]


DPM_NODES = {1: (), 2: (1 / 2,), 3: (1 / 3, 2 / 3)}
"""As published, by order: r_1 = 1/2; r_1 = 1/3 and r_2 = 2/3."""


def dpm_tableau(p: Reverse, form: Form, stops: Sequence[Level]) -> list[list[Tensor]]:
    """Two values at the step's middle; of three, the last line takes the first and last.

    What DPM-Solver and DPM-Solver++ share where they take one step at a time.
    """
    t, a, *_ = stops
    rows = [[form.total(p, t, a)]]
    if len(stops) == 3:
        rows.append(middle(p, form, a, t, stops[2]))
    elif len(stops) == 4:
        b, s = stops[2:]
        w_t, w_b = lagrange(p, form, [t, b], t, s)
        rows += [lagrange(p, form, [t, a], t, b), [w_t, 0 * w_t, w_b]]
    return rows


@dataclass(frozen=True)
class DPMSolver(ExponentialRK):
    """DPM-Solver-1, -2 and -3, in eps.  Lu et al. (2022a), eq. 3.7, algs. 1 and 2; any eta.

    skip_type: what the stages divide evenly: "logSNR", lam as in the paper; "time_uniform", t;
    "time_quadratic", sqrt t. dpm-solver's code takes the walk's, for fast sampling too.
    """

    order: int = 3
    skip_type: SkipType = "logSNR"
    form = NoiseForm()
    presets: ClassVar = {
        f"dpm_{k}": Preset({"order": k}, f"DPM-Solver-{k}, Lu et al. (2022a), {where}")
        for k, where in ((1, "eq. 3.7"), (2, "alg. 1"), (3, "alg. 2"))
    }

    def __post_init__(self) -> None:
        whole("DPMSolver's order", self.order, 1, 3)
        check_skip(self.skip_type)

    @property
    def traits(self) -> Traits:
        """One network call a stage."""
        return exponential(self.order, calls=self.order)

    @property
    def nodes(self) -> tuple[float, ...]:
        """As published."""
        return DPM_NODES[self.order]

    def tableau(self, p: Reverse, stops: Sequence[Level]) -> list[list[Tensor]]:
        """As published."""
        return dpm_tableau(p, self.form, stops)


@dataclass(frozen=True)
class DPMSolverPPSinglestep(ExponentialRK):
    """DPM-Solver++(2S) and its third-order sibling, in x0; any eta.  Lu et al. (2022b), alg. 1.

    skip_type: see ``DPMSolver``.
    stage_noise: "path", one Brownian path for the stages and the step, or "independent", draws
                 that know nothing of each other, as k-diffusion's dpmpp_sde with a
                 ``noise_sampler`` that is no Brownian tree.
    """

    order: int = 2
    skip_type: SkipType = "logSNR"
    stage_noise: StageNoise = "path"
    form = DataForm()
    presets: ClassVar = {
        "dpmpp_2s": Preset({"order": 2}, "DPM-Solver++(2S), Lu et al. (2022b), alg. 1"),
        "dpmpp_3s": Preset({"order": 3}, "DPM-Solver++(3S), dpm-solver's code"),
    }

    def __post_init__(self) -> None:
        whole("DPMSolverPPSinglestep's order", self.order, 1, 3)
        check_skip(self.skip_type)
        one_of(self.stage_noise, "stage_noise", dict.fromkeys(get_args(StageNoise)))

    @property
    def traits(self) -> Traits:
        """One network call a stage."""
        return exponential(self.order, calls=self.order)

    @property
    def nodes(self) -> tuple[float, ...]:
        """As published."""
        return DPM_NODES[self.order]

    def tableau(self, p: Reverse, stops: Sequence[Level]) -> list[list[Tensor]]:
        """As published."""
        return dpm_tableau(p, self.form, stops)
