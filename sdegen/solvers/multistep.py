"""Multistep exponential integrators: a polynomial through the last values, one call per step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from torch import Tensor

from sdegen.checks import whole
from sdegen.sde.level import Level
from sdegen.solvers.equation import Reverse
from sdegen.solvers.exponential import (
    DataForm,
    Form,
    FormName,
    NoiseForm,
    PolynomialClock,
    advance,
    form_of,
    lagrange,
    middle,
)
from sdegen.solvers.quadrature import points
from sdegen.solvers.solver import Preset, Solver, Step
from sdegen.solvers.traits import Traits, exponential


class LinearMultistep(Solver):
    """Exponential Adams methods.  A subclass says how many values, in which form, and how they are
    weighted.

    The predictor goes from t to s with the last ``order`` values, Adams-Bashforth. With a
    ``corrector`` of c > 0 values the step before is done again from where it started, now that the
    value at its end is known, Adams-Moulton: no further call, and the same noise. The last step
    has no such value and stays uncorrected. The first steps use the values there are.
    """

    order: int
    """Values that the predictor goes through."""

    @property
    def corrector(self) -> int:
        """Values that the corrector goes through, the new one included; 0 for none."""
        return 0

    @property
    def euler_at_final(self) -> bool:
        """True when the last step's predictor goes through one value."""
        return False

    @property
    def lower_order_final(self) -> int:
        """Values of the last step's predictor, one more in each step before; 0 keeps the order."""
        return 0

    @property
    @abstractmethod
    def form(self) -> Form:
        """The prediction that is taken for a polynomial."""

    @abstractmethod
    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """Of the values at the nodes, for a step from t to s; the first node is t."""

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step; memory is the last level, the state there, values and levels, the noise, and
        the equation, whose eta may have been another."""
        form, value = self.form, self.form.view(p.model(x, t))
        past: list[tuple[Level, Tensor]] = []
        if memory is not None:
            r, x_r, past, z_r, q = memory
            if self.corrector:
                known = [past[0], (t, value), *past[1:]][: self.corrects(self.lower(q))]
                x = self.leap(q, form, x_r, r, t, known, z_r)
        past = [(t, value), *past][: max(self.order, self.corrector - 1)]
        z = p.noise(x, t, s) if p.noisy else None
        euler = self.euler_at_final and p.left == 0
        known = past[: 1 if euler else self.order - self.lower(p)]
        return Step(self.leap(p, form, x, t, s, known, z), (t, x, past, z, p))

    def lower(self, p: Reverse) -> int:
        """By how many values this step is below the order."""
        if not self.lower_order_final or p.left is None:
            return 0
        return max(0, self.order - self.lower_order_final - p.left)

    def corrects(self, lower: int) -> int:
        """Values of the corrector of a step whose predictor has so many less: one more than it at
        most, as ever after."""
        return min(self.corrector, self.order - lower + 1) if lower else self.corrector

    def leap(
        self,
        p: Reverse,
        form: Form,
        x: Tensor,
        t: Level,
        s: Level,
        known: Sequence[tuple[Level, Tensor]],
        z: Tensor | None,
    ) -> Tensor:
        """From x at t to s with these values."""
        nodes, values = [node for node, _ in known], [q for _, q in known]
        return advance(p, form, x, t, s, self.weights(p, nodes, t, s), values, z)


def at_final(order: float, lowered: int) -> float:
    """The order where the last step goes through so many values, 0 for all: one above its own."""
    return min(order, lowered + 1) if lowered else order


def check_final(lowered: int) -> None:
    """Refuse what is no order of a last step."""
    if not isinstance(lowered, bool):
        whole("lower_order_final, the last step's order,", lowered, 0)


def corrected(order: int, corrector: int) -> int:
    """The order with a corrector, if there is one: it gains at most one on the predictor."""
    return min(corrector, order + 1) if corrector else order


def check_corrector(name: str, values: int) -> None:
    """Refuse a corrector that corrects nothing."""
    whole(f"{name}'s corrector", values, 0)
    if values == 1:
        raise ValueError(
            "A corrector of 1 value is a backward Euler step: use 0 (none), or at least 2."
        )


def check_published(published: bool, order: int) -> None:
    """Refuse ``published`` where the published formula is the only one."""
    if published and order != 3:
        raise ValueError(
            f"published names the shipped formula of order 3, but order = {order}: orders 1 and 2 "
            "are always as published."
        )


@dataclass(frozen=True)
class Multistep(LinearMultistep):
    """Exponential Adams of any order: exact for a Q that is a polynomial of degree order - 1.

    order:      values of the predictor;  corrector: values of the corrector, 0 for none.
    prediction: Q, "x0", "eps", "F" (EDM's), "straight": eps - x0.
    sigma_data: the data's std in "F" alone, default 0.5.
    clock:      what Q is a polynomial in: "lam", "t", "rho", sigma / alpha, "tau", sigma /
                (alpha + sigma), or "wide", sigmoid(-lam / 1.5 - 1).
    euler_at_final: the last step's predictor goes through one value. A polynomial is at its worst
                there, where nothing corrects it: better with up to some 12 steps, of order 2.
    lower_order_final: see ``UniPC``.
    """

    order: int = 3
    corrector: int = 0
    prediction: FormName = "x0"
    clock: PolynomialClock = "lam"
    sigma_data: float | None = None
    euler_at_final: bool = False
    lower_order_final: int = 0
    presets: ClassVar = {
        "multistep": Preset({}, "exponential Adams-Bashforth in x0"),
        "multistep_4": Preset({"order": 4}, "exponential Adams-Bashforth in x0"),
        "multistep_eps": Preset({"prediction": "eps"}, "exponential Adams-Bashforth in eps"),
        "multistep_f": Preset({"prediction": "F"}, "exponential Adams-Bashforth in F"),
        "multistep_pc": Preset({"corrector": 4}, "exponential Adams-Bashforth-Moulton in x0"),
        "multistep_pc_2": Preset({"order": 2, "corrector": 3}, "multistep_pc of one order less"),
        "multistep_pc_4": Preset({"order": 4, "corrector": 5}, "multistep_pc of one order more"),
        "multistep_wide": Preset(
            {"order": 4, "corrector": 4, "clock": "wide"},
            "Adams-Bashforth-Moulton in x0, a polynomial in the wide clock",
        ),
        "multistep_wide_euler": Preset(
            {"order": 4, "corrector": 4, "clock": "wide", "euler_at_final": True},
            "multistep_wide, its last step Euler's: for few calls",
        ),
        "multistep_wide_2": Preset(
            {"order": 2, "corrector": 3, "clock": "wide"}, "multistep_wide of order 2"
        ),
        "multistep_wide_5": Preset(
            {"order": 5, "corrector": 5, "clock": "wide"}, "multistep_wide of order 5: for many"
        ),
        "multistep_straight": Preset(
            {"prediction": "straight", "clock": "tau"}, "Adams-Bashforth of the straight flow"
        ),
        "multistep_straight_pc_4": Preset(
            {"order": 4, "corrector": 5, "prediction": "straight", "clock": "tau"},
            "Adams-Bashforth-Moulton of the straight flow",
        ),
        "multistep_f_pc_4": Preset(
            {"order": 4, "corrector": 5, "prediction": "F"}, "the same in F, of one order more"
        ),
    }

    def __post_init__(self) -> None:
        whole("Multistep's order", self.order, 1)
        check_corrector("Multistep", self.corrector)
        if self.clock not in get_args(PolynomialClock):
            known = ", ".join(map(repr, get_args(PolynomialClock)))
            raise ValueError(f"clock is one of {known}, but it is {self.clock!r}.")
        check_final(self.lower_order_final)
        form_of(self.prediction, self.sigma_data)

    @property
    def form(self) -> Form:
        """That of the prediction."""
        return form_of(self.prediction, self.sigma_data)

    @property
    def traits(self) -> Traits:
        """The last step of one value has an error of second order."""
        order = at_final(corrected(self.order, self.corrector), self.lower_order_final)
        return exponential(min(order, 2) if self.euler_at_final else order)

    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """The polynomial's exact integral."""
        return lagrange(p, self.form, nodes, t, s, self.clock)


def curvature(p: Reverse, form: Form, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
    """Weights of three values in  INT density (lam - lam_t)^2  times their divided difference."""
    lam, w = points(t.lam, s.lam)
    moment = (w * form.density(p, lam, s) * (lam - t.lam.unsqueeze(-1)) ** 2).sum(-1)
    a, b, c = (node.lam for node in nodes)
    gaps = (a - b) * (a - c), (b - a) * (b - c), (c - a) * (c - b)
    return [moment / gap for gap in gaps]


def dpm_weights(
    p: Reverse, form: Form, nodes: Sequence[Level], t: Level, s: Level, published: bool
) -> list[Tensor]:
    """Two values at the step's middle; three by their polynomial, or as the shipped code has it.

    What the two multistep DPM-Solvers share.
    """
    if len(nodes) == 2:
        return middle(p, form, nodes[1], t, s)
    exact = lagrange(p, form, nodes, t, s)
    if len(nodes) == 1 or not published:
        return exact
    # The shipped code takes the divided difference for the second derivative: half of it.
    lost = curvature(p, form, nodes, t, s)
    return [w - c / 2 for w, c in zip(exact, lost, strict=True)]


@dataclass(frozen=True)
class DPMSolverPP(LinearMultistep):
    """DPM-Solver++(1), (2M) and (3M), for every eta.  Lu et al. (2022b), alg. 2; eta = 1: SDE-2M.

    With h = lam_s - lam_t and x0 frozen over the step, the reverse equation's own integral is

    x_s = sigma_s/sigma_t e^{-eta^2 h} x + alpha_s (1 - e^{-(1+eta^2) h}) x0
          + sigma_s sqrt(1 - e^{-2 eta^2 h}) z

    Order 2 takes x0 at the step's middle, extrapolated from the last two; its first step has only
    one and is of order 1. Order 3 is the exact integral of the parabola; ``published`` is the
    formula in dpm-solver's code and diffusers, of order 2; k-diffusion's differs in its second
    step, which is the exact integral of the line. lower_order_final: see ``UniPC``.
    """

    order: int = 2
    published: bool = False
    lower_order_final: int = 0
    presets: ClassVar = {
        "dpmpp_1": Preset({"order": 1}, "DPM-Solver++(1), Lu et al. (2022b), eq. 8"),
        "dpmpp": Preset({}, "DPM-Solver++(2M), Lu et al. (2022b), alg. 2"),
        "dpmpp_3": Preset({"order": 3}, "DPM-Solver++(3M), exact third order"),
        "dpmpp_3m": Preset({"order": 3, "published": True}, "DPM-Solver++(3M), dpm-solver's code"),
    }
    form = DataForm()

    def __post_init__(self) -> None:
        whole("DPMSolverPP's order", self.order, 1, 3)
        check_final(self.lower_order_final)
        check_published(self.published, self.order)

    @property
    def traits(self) -> Traits:
        """The shipped third-order formula is of order 2."""
        return exponential(at_final(2 if self.published else self.order, self.lower_order_final))

    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """As published."""
        return dpm_weights(p, self.form, nodes, t, s, self.published)


@dataclass(frozen=True)
class DPMSolverMultistep(LinearMultistep):
    """DPM-Solver in eps, multistep: the formulas of ``DPMSolverPP`` with eps for x0.

    Lu et al. (2022b), app. B; eta = 1: SDE-DPM-Solver of Lu et al. (2022b), sec. 5.
    lower_order_final: see ``UniPC``.
    """

    order: int = 2
    published: bool = False
    lower_order_final: int = 0
    presets: ClassVar = {
        "dpm_2m": Preset({}, "DPM-Solver multistep 2, dpm-solver's code"),
        "dpm_multistep_3": Preset({"order": 3}, "DPM-Solver multistep 3, exact third order"),
        "dpm_3m": Preset({"order": 3, "published": True}, "DPM-Solver multistep 3, its code"),
    }
    form = NoiseForm()

    def __post_init__(self) -> None:
        whole("DPMSolverMultistep's order", self.order, 1, 3)
        check_final(self.lower_order_final)
        check_published(self.published, self.order)

    @property
    def traits(self) -> Traits:
        """The shipped third-order formula is of order 2."""
        return exponential(at_final(2 if self.published else self.order, self.lower_order_final))

    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """As published."""
        return dpm_weights(p, self.form, nodes, t, s, self.published)
