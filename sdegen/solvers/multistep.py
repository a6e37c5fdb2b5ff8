"""Multistep exponential integrators: a polynomial through the last values, one call per step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor

from sdegen.checks import whole
from sdegen.sde.level import Level
from sdegen.solvers.equation import Eta, Reverse
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
    @abstractmethod
    def form(self) -> Form:
        """The prediction that is taken for a polynomial."""

    @abstractmethod
    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """Of the values at the nodes, for a step from t to s; the first node is t."""

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step; memory is the last level, the state there, values and levels, the noise."""
        form, value = self.form, self.form.view(p.model(x, t))
        past: list[tuple[Level, Tensor]] = []
        if memory is not None:
            r, x_r, past, z_r = memory
            if self.corrector:
                known = [past[0], (t, value), *past[1:]][: self.corrector]
                x = self.leap(p, form, x_r, r, t, known, z_r)
        past = [(t, value), *past][: max(self.order, self.corrector - 1)]
        z = p.noise(x, t, s) if p.noisy else None
        known = past[: 1 if self.euler_at_final and p.left == 0 else self.order]
        return Step(self.leap(p, form, x, t, s, known, z), (t, x, past, z))

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
    prediction: Q, "x0", "eps", "F" (EDM's, for data of std ``sigma_data``), "straight": eps - x0.
    clock:      what Q is a polynomial in: "lam", "t", "rho", sigma / alpha, "tau", sigma /
                (alpha + sigma), or "wide", sigmoid(-lam / 1.5 - 1).
    euler_at_final: the last step's predictor goes through one value. A polynomial is at its worst
                there, where nothing corrects it: better with up to some 12 steps, of order 2.
    """

    order: int = 3
    corrector: int = 0
    prediction: FormName = "x0"
    clock: PolynomialClock = "lam"
    sigma_data: float = 0.5
    euler_at_final: bool = False
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
        form_of(self.prediction, self.sigma_data)

    @property
    def form(self) -> Form:
        """That of the prediction."""
        return form_of(self.prediction, self.sigma_data)

    @property
    def traits(self) -> Traits:
        """The last step of one value has an error of second order."""
        order = corrected(self.order, self.corrector)
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
    formula in dpm-solver's code, diffusers and k-diffusion, of order 2.
    """

    order: int = 2
    published: bool = False
    presets: ClassVar = {
        "dpmpp_1": Preset({"order": 1}, "DPM-Solver++(1), Lu et al. (2022b), eq. 8"),
        "dpmpp": Preset({}, "DPM-Solver++(2M), Lu et al. (2022b), alg. 2"),
        "dpmpp_3": Preset({"order": 3}, "DPM-Solver++(3M), exact third order"),
        "dpmpp_3m": Preset({"order": 3, "published": True}, "DPM-Solver++(3M), dpm-solver's code"),
    }
    form = DataForm()

    def __post_init__(self) -> None:
        whole("DPMSolverPP's order", self.order, 1, 3)
        check_published(self.published, self.order)

    @property
    def traits(self) -> Traits:
        """The shipped third-order formula is of order 2."""
        return exponential(2 if self.published else self.order)

    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """As published."""
        return dpm_weights(p, self.form, nodes, t, s, self.published)


@dataclass(frozen=True)
class DPMSolverMultistep(LinearMultistep):
    """DPM-Solver in eps, multistep: the formulas of ``DPMSolverPP`` with eps for x0.

    Lu et al. (2022b), app. B; eta = 1: SDE-DPM-Solver of Lu et al. (2022b), sec. 5.
    """

    order: int = 2
    published: bool = False
    presets: ClassVar = {
        "dpm_2m": Preset({}, "DPM-Solver multistep 2, dpm-solver's code"),
        "dpm_multistep_3": Preset({"order": 3}, "DPM-Solver multistep 3, exact third order"),
        "dpm_3m": Preset({"order": 3, "published": True}, "DPM-Solver multistep 3, its code"),
    }
    form = NoiseForm()

    def __post_init__(self) -> None:
        whole("DPMSolverMultistep's order", self.order, 1, 3)
        check_published(self.published, self.order)

    @property
    def traits(self) -> Traits:
        """The shipped third-order formula is of order 2."""
        return exponential(2 if self.published else self.order)

    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """As published."""
        return dpm_weights(p, self.form, nodes, t, s, self.published)


def half_b_weights(
    p: Reverse, form: Form, nodes: Sequence[Level], t: Level, s: Level, B: str
) -> list[Tensor]:
    """Two values are weighted by half of B(h), three and more exactly.

    B is "bh2", the weight of a constant, or "bh1", the step times the density at its end.
    Zhao et al. (2023), sec. 3: B_2 and B_1.
    """
    if len(nodes) != 2:
        return lagrange(p, form, nodes, t, s)
    if B == "bh2":
        return middle(p, form, nodes[1], t, s)
    h = s.lam - t.lam
    value = form.density(p, s.lam.unsqueeze(-1), s).squeeze(-1) * h
    slope = value * h / (2 * (nodes[1].lam - t.lam))
    return [form.total(p, t, s) - slope, slope]


@dataclass(frozen=True)
class UniPC(LinearMultistep):
    """UniP-p predicts, UniC-p corrects with the value that the next step needs anyway.

    Zhao et al. (2023), algs. 1-2, for every eta. Of order p + 1 = order + 1, as long as
    the last steps keep their order (shipped code lowers it). B: "bh1" or "bh2"; it matters where
    the weight is 1/2 by definition: UniP-2 and UniC-1.
    """

    order: int = 3
    B: Literal["bh1", "bh2"] = "bh2"
    prediction: Literal["x0", "eps"] = "x0"
    presets: ClassVar = {
        "unipc": Preset({}, "UniPC-3, B2, x0; Zhao et al. (2023), algs. 1-2"),
        "unipc_1": Preset({"order": 1}, "UniPC-1, B2, x0; Zhao et al. (2023), algs. 1-2"),
        "unipc_2": Preset({"order": 2}, "UniPC-2, B2, x0; Zhao et al. (2023), algs. 1-2"),
        "unipc_2_bh1": Preset({"order": 2, "B": "bh1"}, "UniPC-2, B1, x0; Zhao et al. (2023)"),
        "unipc_2_eps": Preset(
            {"order": 2, "prediction": "eps"}, "UniPC-2, B2, eps; Zhao et al. (2023), algs. 1-2"
        ),
        "unipc_eps": Preset({"prediction": "eps"}, "UniPC-3, B2, eps; Zhao et al. (2023)"),
    }

    def __post_init__(self) -> None:
        whole("UniPC's order", self.order, 1)
        if self.B not in ("bh1", "bh2"):
            raise ValueError(f"B must be 'bh1' or 'bh2', but it is {self.B!r}.")
        if self.prediction not in ("x0", "eps"):
            raise ValueError(f"prediction must be 'x0' or 'eps', but it is {self.prediction!r}.")

    @property
    def traits(self) -> Traits:
        """The corrector's order."""
        return exponential(corrected(self.order, self.corrector))

    @property
    def corrector(self) -> int:
        """One value more than the predictor."""
        return self.order + 1

    @property
    def form(self) -> Form:
        """That of the prediction."""
        return form_of(self.prediction)

    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """By B."""
        return half_b_weights(p, self.form, nodes, t, s, self.B)


@dataclass(frozen=True)
class SASolver(LinearMultistep):
    """Stochastic Adams: predictor and corrector share one noise.  Xue et al. (2023), alg. 1.

    order: values of the predictor;  corrector: values of the corrector, the new one included, 0
    for none;  eta: the paper's tau, a number or a function of lam. Two values are weighted as in
    the authors' code, which is UniPC's B_1.
    """

    order: int = 3
    corrector: int = 4
    eta: Eta = 1.0
    form = DataForm()
    presets: ClassVar = {"sa": Preset({}, "SA-Solver(3, 4), Xue et al. (2023), alg. 1")}

    def __post_init__(self) -> None:
        whole("SASolver's order", self.order, 1)
        check_corrector("SASolver", self.corrector)

    @property
    def traits(self) -> Traits:
        """The corrector's order."""
        return exponential(corrected(self.order, self.corrector))

    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """By the authors' B."""
        return half_b_weights(p, self.form, nodes, t, s, "bh1")
