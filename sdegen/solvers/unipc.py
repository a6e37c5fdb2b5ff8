"""Multistep methods with correctors weighted by B(h): UniPC, and SA-Solver, which shares it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from sdegen.checks import whole
from sdegen.sde.level import Level
from sdegen.solvers.equation import Eta, Reverse
from sdegen.solvers.exponential import DataForm, Form, form_of, lagrange, middle
from sdegen.solvers.multistep import (
    LinearMultistep,
    at_final,
    check_corrector,
    check_final,
    corrected,
)
from sdegen.solvers.solver import Preset
from sdegen.solvers.traits import Traits, exponential


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
    the last steps keep their order. B: "bh1" or "bh2"; it matters where the weight is 1/2 by
    definition: UniP-2 and UniC-1.

    lower_order_final: order of the last step, the one before having one more, and so on; the
        corrector's falls with it. 1, or True, is what shipped codes do; where ``denoise=True``
        follows, whose step to sigma = 0 is the last, 2. 0 keeps the order to the end.
    """

    order: int = 3
    B: Literal["bh1", "bh2"] = "bh2"
    prediction: Literal["x0", "eps"] = "x0"
    lower_order_final: int = 0
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
        check_final(self.lower_order_final)
        if self.B not in ("bh1", "bh2"):
            raise ValueError(f"B must be 'bh1' or 'bh2', but it is {self.B!r}.")
        if self.prediction not in ("x0", "eps"):
            raise ValueError(f"prediction must be 'x0' or 'eps', but it is {self.prediction!r}.")

    @property
    def traits(self) -> Traits:
        """The corrector's order."""
        order = corrected(self.order, self.corrector)
        return exponential(at_final(order, self.lower_order_final))

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
