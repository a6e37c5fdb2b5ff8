"""Multistep methods with another idea: polynomials in t, plain Adams, a noise that fades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, exp

from sdegen.checks import whole
from sdegen.sde.level import Level
from sdegen.solvers.equation import Eta, Reverse
from sdegen.solvers.exponential import DataForm, NoiseForm, advance, clock_at, lagrange
from sdegen.solvers.multistep import LinearMultistep, at_final, check_final, check_published
from sdegen.solvers.quadrature import points
from sdegen.solvers.solver import Preset, Solver, Step
from sdegen.solvers.traits import Traits, exponential


@dataclass(frozen=True)
class DEIS(LinearMultistep):
    """Exponential Adams-Bashforth on eps, polynomial in t or rho.  Zhang & Chen (2023).

    order counts values, which is the order of convergence; the paper's tAB-r has polynomials of
    degree r, hence order r + 1. Its weights, there by a Riemann sum, are exact here.
    lower_order_final: see ``UniPC``. diffusers' DEIS is a polynomial in lam, not one of these:
    ``Multistep(k, prediction="eps")``.
    """

    order: int = 3
    clock: Literal["t", "rho"] = "t"
    lower_order_final: int = 0
    form = NoiseForm()
    presets: ClassVar = {
        **{
            f"deis_tab{r}": Preset({"order": r + 1}, f"tAB{r}-DEIS, Zhang & Chen (2023)")
            for r in (1, 2, 3)
        },
        **{
            f"deis_rhoab{r}": Preset(
                {"order": r + 1, "clock": "rho"}, f"rhoAB{r}-DEIS, Zhang & Chen (2023)"
            )
            for r in (1, 2, 3)
        },
    }

    def __post_init__(self) -> None:
        whole("DEIS's order", self.order, 1)
        check_final(self.lower_order_final)
        if self.clock not in ("t", "rho"):
            raise ValueError(f"DEIS's clock must be 't' or 'rho', but it is {self.clock!r}.")

    @property
    def traits(self) -> Traits:
        """As many as there are values."""
        return exponential(at_final(self.order, self.lower_order_final))

    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """The polynomial's exact integral."""
        return lagrange(p, self.form, nodes, t, s, self.clock)


ADAMS = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def adams_weights(
    p: Reverse, form: NoiseForm, nodes: Sequence[Level], t: Level, s: Level
) -> list[Tensor]:
    """DDIM's weight times the constants."""
    total = form.total(p, t, s)
    return [c * total for c in ADAMS[len(nodes)]]


@dataclass(frozen=True)
class IPNDM(LinearMultistep):
    """DDIM with eps averaged by Adams and Bashforth's weights for even steps.

    Zhang & Chen (2023); Liu et al. (2022), eq. 12. The weights ignore both the step's
    kernel and uneven steps: beyond two values the error falls, the order stays 2.
    """

    order: int = 4
    form = NoiseForm()
    presets: ClassVar = {
        "ipndm": Preset({}, "iPNDM, Zhang & Chen (2023)"),
    }

    def __post_init__(self) -> None:
        whole("IPNDM's order", self.order, 1, 4)

    @property
    def traits(self) -> Traits:
        """Of order 2 at most."""
        return exponential(min(self.order, 2))

    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """Those for even steps."""
        return adams_weights(p, self.form, nodes, t, s)


@dataclass(frozen=True)
class PLMS(Solver):
    """Pseudo linear multistep as Stable Diffusion ships it: iPNDM whose first step is Heun-like.

    The first step averages eps at both ends, for one call more.  Liu et al. (2022), eqs. 12-13.
    """

    order: int = 4
    presets: ClassVar = {"plms": Preset({}, "PLMS, Liu et al. (2022), eq. 12")}

    def __post_init__(self) -> None:
        whole("PLMS's order", self.order, 1, 4)

    @property
    def traits(self) -> Traits:
        """Of order 2 at most; one call more for the first step."""
        return exponential(min(self.order, 2), calls_to_start=1)

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """The first step on its own; then iPNDM's."""
        ipndm = IPNDM(self.order)
        if memory is not None:
            return ipndm.step(p, x, t, s, memory)
        form = ipndm.form
        eps_t = form.view(p.model(x, t))
        z = p.noise(x, t, s) if p.noisy else None
        total = form.total(p, t, s)
        eps_s = form.view(p.model(advance(p, form, x, t, s, [total], [eps_t], z), s))
        x_s = advance(p, form, x, t, s, [total / 2, total / 2], [eps_t, eps_s], z)
        return Step(x_s, (t, x, [(t, eps_t)], z, p))


def fading(lam: Tensor) -> Tensor:
    """eta of ER-SDE: eta^2 = -d log psi / d lam, psi = exp(rho^0.3) + 10.  Cui et al. (2023).

    In the paper's letters phi(rho) = rho psi(rho), and noise is kept as phi(rho_s) / phi(rho_t).
    """
    power = exp(-0.3 * lam)
    # exp(power) / (exp(power) + 10), which does not overflow where the noise is large.
    return (0.3 * power / (1 + 10 * exp(-power))).sqrt()


@dataclass(frozen=True)
class ERSDE(LinearMultistep):
    """Extended reverse-time SDE: x0 polynomial in rho, noise that fades towards the data.

    Cui et al. (2023), on every linear SDE. order 3 is the parabola's exact integral;
    ``published`` takes the paper's Taylor form, whose first derivative is a one-sided difference:
    order 2. eta: by default the paper's noise scale; any other number or function.
    """

    order: int = 3
    published: bool = False
    eta: Eta = fading
    form = DataForm()
    presets: ClassVar = {
        "er_sde": Preset({}, "ER-SDE-Solver-3, exact third order"),
        "er_sde_1": Preset({"order": 1}, "ER-SDE-Solver-1, Cui et al. (2023)"),
        "er_sde_2": Preset({"order": 2}, "ER-SDE-Solver-2, Cui et al. (2023)"),
        "er_sde_3": Preset({"order": 3, "published": True}, "ER-SDE-Solver-3, Cui et al. (2023)"),
    }

    def __post_init__(self) -> None:
        whole("ERSDE's order", self.order, 1, 3)
        check_published(self.published, self.order)

    @property
    def traits(self) -> Traits:
        """The paper's third-order formula is of order 2."""
        return exponential(2 if self.published else self.order)

    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """Exact, or with the paper's missing term left out."""
        exact = lagrange(p, self.form, nodes, t, s, "rho")
        if len(nodes) < 3 or not self.published:
            return exact
        # Newton's (rho - rho_t)(rho - rho_r) is taken for (rho - rho_t)^2.
        lam, w = points(t.lam, s.lam)
        off = (clock_at(p, "rho", lam) - t.rho.unsqueeze(-1)) * w * self.form.density(p, lam, s)
        a, b, c = (node.rho for node in nodes)
        moment = off.sum(-1) * (b - a)
        gaps = (a - b) * (a - c), (b - a) * (b - c), (c - a) * (c - b)
        return [w + moment / gap for w, gap in zip(exact, gaps, strict=True)]
