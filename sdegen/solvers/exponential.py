"""Exponential integrators: exact in everything but the change of one prediction over a step.

In lam = log(alpha / sigma) the reverse equation is linear in x and in any one prediction Q of the
network (x0, eps, or the data-scaled F). Its exact integral over a step from t to s is

    x_s = carry x_t + INT density(lam) Q(lam) dlam + std z

and a solver is what it takes for Q(lam): a polynomial through known values. ``lagrange``
integrates that exactly; ``middle`` is the published shortcut for two values. Lu et al. (2022b),
prop. 4.1; Xue et al. (2023), prop. 4.1 (any eta); Zheng et al. (2023) (any linear part).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, exp, expm1, sigmoid, sqrt

from sdegen.checks import number, one_of, optional
from sdegen.model.prediction import LinearPrediction, PredictEDM
from sdegen.sde.level import Level, expand, spread
from sdegen.sde.process import LinearSDE, has_coordinates
from sdegen.solvers.equation import Reverse
from sdegen.solvers.quadrature import integrate, points

Clock = Literal["lam", "t", "rho"]
"""What steps are measured in."""
PolynomialClock = Literal["lam", "t", "rho", "tau", "wide"]
"""What a polynomial is a polynomial in; tau = sigma / (alpha + sigma), sigmoid(-lam), and "wide",
sigmoid(-lam / 1.5 - 1): slow where there is much noise or little, as a prediction is, with a wider
transition than tau's. Measured in docs/benchmarks.md."""


class Form(ABC):
    """The reverse equation written in one prediction Q.  Coefficients are float64, of lam's shape:
    (), (b,), or with coordinates, each of which is an equation of its own."""

    @abstractmethod
    def view(self, prediction: LinearPrediction) -> Tensor:
        """Q, (b, *)."""

    @abstractmethod
    def carry(self, p: Reverse, t: Level, s: Level) -> Tensor:
        """The factor of x_t in x_s."""

    @abstractmethod
    def density(self, p: Reverse, lam: Tensor, s: Level) -> Tensor:
        """The weight in x_s of Q at each lam (*, n) before it."""

    @abstractmethod
    def std(self, p: Reverse, t: Level, s: Level) -> Tensor:
        """The standard deviation of the noise in x_s."""

    def total(self, p: Reverse, t: Level, s: Level) -> Tensor:
        """The density's integral over the step: the weight of a Q that does not change."""
        lam, w = points(t.lam, s.lam)
        return (w * self.density(p, lam, s)).sum(-1)


class DataForm(Form):
    """Q = x0.  y = x / sigma:  dy = [-eta^2 y + (1 + eta^2) e^lam x0] dlam + sqrt(2) eta dW."""

    def view(self, prediction: LinearPrediction) -> Tensor:
        """x0."""
        return prediction.x0

    def carry(self, p: Reverse, t: Level, s: Level) -> Tensor:
        """sigma_s / sigma_t exp(-INT eta^2)."""
        return s.sigma / t.sigma * exp(-p.decay(t.lam, s.lam))

    def density(self, p: Reverse, lam: Tensor, s: Level) -> Tensor:
        """alpha_s (1 + eta^2) exp(-INT (1 + eta^2))."""
        end = s.lam.unsqueeze(-1)
        rate = s.alpha.unsqueeze(-1) * (1 + p.eta2(lam))
        return rate * exp(-(end - lam) - p.decay(lam, end))

    def total(self, p: Reverse, t: Level, s: Level) -> Tensor:
        """alpha_s (1 - exp(-INT (1 + eta^2)))."""
        return -s.alpha * expm1(-(s.lam - t.lam) - p.decay(t.lam, s.lam))

    def std(self, p: Reverse, t: Level, s: Level) -> Tensor:
        """sigma_s sqrt(1 - exp(-2 INT eta^2))."""
        return s.sigma * sqrt(-expm1(-2 * p.decay(t.lam, s.lam)))


class NoiseForm(Form):
    """Q = eps.  y = x / sigma:  dy = [y - (1 + eta^2) eps] dlam + sqrt(2) eta dW."""

    def view(self, prediction: LinearPrediction) -> Tensor:
        """eps."""
        return prediction.eps

    def carry(self, p: Reverse, t: Level, s: Level) -> Tensor:
        """alpha_s / alpha_t."""
        return s.alpha / t.alpha

    def density(self, p: Reverse, lam: Tensor, s: Level) -> Tensor:
        """-(1 + eta^2) sigma_s exp(lam_s - lam)."""
        return -(1 + p.eta2(lam)) * (s.sigma.unsqueeze(-1) * exp(s.lam.unsqueeze(-1) - lam))

    def total(self, p: Reverse, t: Level, s: Level) -> Tensor:
        """-(1 + eta^2) sigma_s (e^h - 1), for an eta that is a number."""
        if callable(p.eta):
            return super().total(p, t, s)
        return -(1 + p.eta2(t.lam)) * s.sigma * expm1(s.lam - t.lam)

    def std(self, p: Reverse, t: Level, s: Level) -> Tensor:
        """sigma_s sqrt(2 INT eta^2 exp(2 (lam_s - lam)))."""
        if not callable(p.eta):
            return s.sigma * sqrt(p.eta2(t.lam) * expm1(2 * (s.lam - t.lam)))
        lam, w = points(t.lam, s.lam)
        growth = exp(2 * (s.lam.unsqueeze(-1) - lam))
        return s.sigma * sqrt((2 * w * p.eta2(lam) * growth).sum(-1))


@dataclass(frozen=True)
class ScaledForm(Form):
    """Q = F of EDM; y = x / n, n^2 = (alpha sd)^2 + sigma^2, has no linear part at eta = 0.

    With sin^2 = (sigma / n)^2:  dy = [(1 + eta^2) sin cos F - eta^2 sin^2 y] dlam + noise. For
    data N(0, sd^2) F is zero and every step is exact. On a variance-preserving SDE and sd = 1,
    F = -v. Zheng et al. (2023); Lu & Song (2024), TrigFlow.
    """

    sigma_data: float = 0.5

    def view(self, prediction: LinearPrediction) -> Tensor:
        """F."""
        return prediction.view(*PredictEDM(self.sigma_data)(prediction.level))

    def sin2(self, lam: Tensor) -> Tensor:
        """sigma^2 / n^2."""
        return sigmoid(-2 * (lam + torch.log(lam.new_tensor(self.sigma_data))))

    def norm(self, level: Level) -> Tensor:
        """n, the standard deviation of x for data of std sd."""
        return sqrt((level.alpha * self.sigma_data) ** 2 + level.sigma**2)

    def decay(self, p: Reverse, t: Tensor, s: Tensor) -> Tensor:
        """INT eta^2 sin^2 dlam."""
        return integrate(lambda lam: p.eta2(lam) * self.sin2(lam), t, s)

    def carry(self, p: Reverse, t: Level, s: Level) -> Tensor:
        """n_s / n_t exp(-INT eta^2 sin^2)."""
        return self.norm(s) / self.norm(t) * exp(-self.decay(p, t.lam, s.lam))

    def density(self, p: Reverse, lam: Tensor, s: Level) -> Tensor:
        """n_s (1 + eta^2) sin cos exp(-INT eta^2 sin^2)."""
        sin2 = self.sin2(lam)
        rate = (1 + p.eta2(lam)) * sqrt(sin2 * (1 - sin2)) * self.norm(s).unsqueeze(-1)
        return rate * exp(-self.decay(p, lam, s.lam.unsqueeze(-1)))

    def std(self, p: Reverse, t: Level, s: Level) -> Tensor:
        """n_s sqrt(1 - exp(-2 INT eta^2 sin^2))."""
        return self.norm(s) * sqrt(-expm1(-2 * self.decay(p, t.lam, s.lam)))


class StraightForm(Form):
    """Q = eps - x0, the straight flow's velocity; y = x / (alpha + sigma).

    With tau = sigma / (alpha + sigma), y = (1 - tau) x0 + tau eps, and at eta = 0 dy / dtau = Q:
    dy = [-(1 + eta^2) tau (1 - tau) Q - eta^2 tau y] dlam + sqrt(2) eta tau dW
    """

    def view(self, prediction: LinearPrediction) -> Tensor:
        """eps - x0."""
        one = torch.ones_like(prediction.level.alpha)
        return prediction.view(-one, one)

    def decay(self, p: Reverse, t: Tensor, s: Tensor) -> Tensor:
        """INT eta^2 tau dlam."""
        return integrate(lambda lam: p.eta2(lam) * sigmoid(-lam), t, s)

    def carry(self, p: Reverse, t: Level, s: Level) -> Tensor:
        """(alpha_s + sigma_s) / (alpha_t + sigma_t) exp(-INT eta^2 tau)."""
        return (s.alpha + s.sigma) / (t.alpha + t.sigma) * exp(-self.decay(p, t.lam, s.lam))

    def density(self, p: Reverse, lam: Tensor, s: Level) -> Tensor:
        """-(alpha_s + sigma_s) (1 + eta^2) tau (1 - tau) exp(-INT eta^2 tau)."""
        rate = (1 + p.eta2(lam)) * sigmoid(lam) * sigmoid(-lam)
        return (
            -(s.alpha + s.sigma).unsqueeze(-1)
            * rate
            * exp(-self.decay(p, lam, s.lam.unsqueeze(-1)))
        )

    def std(self, p: Reverse, t: Level, s: Level) -> Tensor:
        """(alpha_s + sigma_s) sqrt(2 INT eta^2 tau^2 exp(-2 INT eta^2 tau))."""
        lam, w = points(t.lam, s.lam)
        kept = exp(-2 * self.decay(p, lam, s.lam.unsqueeze(-1)))
        var = (2 * w * p.eta2(lam) * sigmoid(-lam) ** 2 * kept).sum(-1)
        return (s.alpha + s.sigma) * sqrt(var)


FormName = Literal["x0", "eps", "F", "straight"]


def form_of(name: str, sigma_data: float | None = None) -> Form:
    """The form of that name, F's of data of that std; ValueError for another, and for a std that
    no form asks for."""
    optional(number, "sigma_data", sigma_data)
    if sigma_data is not None and not sigma_data > 0:
        raise ValueError(f"sigma_data must be positive, but it is {sigma_data!r}.")
    if sigma_data is not None and name != "F":
        raise ValueError(
            f"sigma_data = {sigma_data:g} is of prediction='F', EDM's, and says nothing of "
            f"{name!r}: leave one of them out."
        )
    made: Form = one_of(
        name,
        "form",
        {
            "x0": DataForm(),
            "eps": NoiseForm(),
            "F": ScaledForm() if sigma_data is None else ScaledForm(sigma_data),
            "straight": StraightForm(),
        },
    )
    return made


def clock_at(p: Reverse, clock: PolynomialClock, lam: Tensor) -> Tensor:
    """A clock's reading wherever lam is."""
    if clock == "lam":
        return lam
    if clock == "t":
        assert isinstance(p.sde, LinearSDE)
        if has_coordinates(p.sde):  # to which the last axes belong
            return p.sde.time(lam.movedim(-1, 0)).movedim(0, -1)
        return p.sde.time(lam)
    if clock == "rho":
        return exp(-lam)
    return sigmoid(-lam) if clock == "tau" else sigmoid(-lam / 1.5 - 1)


def lagrange(
    p: Reverse,
    form: Form,
    nodes: Sequence[Level],
    t: Level,
    s: Level,
    clock: PolynomialClock = "lam",
) -> list[Tensor]:
    """The weight of Q at each node: the density times the node's Lagrange polynomial, integrated.

    Exact to rounding for the polynomial of degree len(nodes) - 1 in the clock, for steps of any
    size. The nodes' clock readings must differ. A node at which the clock reads infinity, pure
    noise in lam, is too far off to bend the polynomial: its weight is 0.
    """
    if len(nodes) == 1:
        return [form.total(p, t, s)]
    lam, w = points(t.lam, s.lam)
    mass, at = w * form.density(p, lam, s), clock_at(p, clock, lam)
    if clock == "t":
        knots = torch.stack([spread(node.t, t.lam.ndim) for node in nodes], -1)
    else:
        knots = clock_at(p, clock, torch.stack([node.lam for node in nodes], -1))
    same, far = torch.eye(len(nodes), dtype=torch.bool), knots.isinf()
    gaps = (knots.unsqueeze(-1) - knots.unsqueeze(-2)).masked_fill(same, 1.0)
    factor = (at.unsqueeze(-2) - knots.unsqueeze(-1)).unsqueeze(-3) / gaps.unsqueeze(-1)
    none = same | far.unsqueeze(-2)  # the node itself, and what is too far off
    basis = factor.masked_fill(none.unsqueeze(-1), 1.0).prod(-2)
    return list((mass.unsqueeze(-2) * basis).sum(-1).masked_fill(far, 0.0).unbind(-1))


def middle(p: Reverse, form: Form, node: Level, t: Level, s: Level) -> list[Tensor]:
    """Two values, Q at t and at a node: the line through them, taken at the step's middle.

    Q + (h / (2 (lam_node - lam_t))) (Q_node - Q).  Backwards it is DPM-Solver++(2M), inside the
    step DPM-Solver-2 and ++(2S), at its end UniC-1 with B_2.  Lu et al. (2022a), alg. 1;
    Lu et al. (2022b), alg. 2; Zhao et al. (2023).
    """
    total = form.total(p, t, s)
    share = (s.lam - t.lam) / (2 * (node.lam - t.lam))
    return [total * (1 - share), total * share]


def advance(
    p: Reverse,
    form: Form,
    x: Tensor,
    t: Level,
    s: Level,
    weights: Sequence[Tensor],
    values: Sequence[Tensor],
    z: Tensor | None = None,
) -> Tensor:
    """carry x + sum of weights times values + std z, (b, *)."""
    x_s = expand(form.carry(p, t, s), x) * x
    for w, q in zip(weights, values, strict=True):
        x_s = x_s + expand(w, x) * q
    return x_s if z is None else x_s + expand(form.std(p, t, s), x) * z
