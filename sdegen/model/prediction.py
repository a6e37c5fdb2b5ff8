"""What a network's output means, and every view of it.

A prediction type is two coefficients: the network's target is  F = a x0 + b eps.  Together with
x = alpha x0 + sigma eps every other view  p x0 + q eps  follows from one call,

    p x0 + q eps = [ (p b - q a) x + (q alpha - p sigma) F ] / (alpha b - sigma a),

by multiplying coefficients, not tensors: the view that the network was trained for is its output
to the last bit, and nothing cancels at small sigma.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, sqrt

from sdegen.checks import number
from sdegen.sde.level import Instant, Level, expand
from sdegen.sde.process import SDE, diffusion_of

Coefficient = Tensor | float


Target = Callable[[Level], tuple[Coefficient, Coefficient]]


# ------------------------------------------------------------------------------ what is predicted


def predict_x0(level: Level) -> tuple[Coefficient, Coefficient]:
    """The clean data."""
    return 1.0, 0.0


def predict_eps(level: Level) -> tuple[Coefficient, Coefficient]:
    """The noise.  Ho et al. (2020)."""
    return 0.0, 1.0


def predict_score(level: Level) -> tuple[Coefficient, Coefficient]:
    """The score, -eps / sigma.  Song et al. (2021)."""
    return 0.0, level.to_score


def predict_v(level: Level) -> tuple[Coefficient, Coefficient]:
    """v = alpha eps - sigma x0.  Salimans & Ho (2022), app. D."""
    return -level.sigma, level.alpha


def predict_velocity(level: Level) -> tuple[Coefficient, Coefficient]:
    """The flow's velocity, alpha' x0 + sigma' eps (eps - x0 on FlowSDE).  Lipman et al. (2023)."""
    return level.d_alpha, level.d_sigma


@dataclass(frozen=True)
class PredictEDM:
    """EDM's F, the residual of unit variance.  Karras et al. (2022), eq. 7 and table 1."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not number("sigma_data", self.sigma_data) > 0:
            raise ValueError(f"EDM's sigma_data must be positive, but it is {self.sigma_data!r}.")

    def __call__(self, level: Level) -> tuple[Coefficient, Coefficient]:
        """F = (x0 - c_skip x) / c_out, written for any alpha."""
        root = sqrt((level.alpha * self.sigma_data) ** 2 + level.sigma**2)
        return level.sigma / (self.sigma_data * root), -level.alpha * self.sigma_data / root


PREDICTIONS: dict[str, Target] = {
    "eps": predict_eps,
    "x0": predict_x0,
    "score": predict_score,
    "v": predict_v,
    "velocity": predict_velocity,
}


def check_target(target: Target, name: Any, level: Any) -> None:
    """Refuse a prediction of one's own that is not made of a level as it is read."""
    read: Any = target(level) if not isinstance(name, str) else (0.0, 0.0)
    if not isinstance(read, tuple | list) or len(read) != 2:
        raise ValueError(
            f"A prediction is (a, b) at a level, output = a x0 + b eps, but {name!r} gave "
            f"{read!r}."
        )


def prediction_name(target: Target) -> str:
    """What a target is called, in a sentence."""
    other = "EDM's F" if isinstance(target, PredictEDM) else repr(target)
    return next((name for name, each in PREDICTIONS.items() if each is target), other)


# ------------------------------------------------------------------------------------ predictions


class Prediction(ABC):
    """What one network call says about a state: views of it cost no further call."""

    @property
    @abstractmethod
    def score(self) -> Tensor:
        """grad log p_t(x), (b, *)."""

    @abstractmethod
    def drift(self, eta: Coefficient) -> Tensor:
        """Drift of the reverse SDE with that eta, (b, *): see ``Reverse``."""


@dataclass(frozen=True, eq=False)
class LinearPrediction(Prediction):
    """The prediction on a linear SDE: x (b, *), the output F (b, *), and F = a x0 + b eps."""

    x: Tensor
    F: Tensor
    level: Level
    a: Coefficient
    b: Coefficient
    more: Any = None
    """The network's second output (b, *), where it has two heads."""
    flow_only: bool = False
    """Where eps is the mean noise of a flow and gives no score."""

    def view(self, p: Coefficient, q: Coefficient) -> Tensor:
        """p x0 + q eps, (b, *)."""
        if same(p, self.a) and same(q, self.b):
            return 1.0 * self.F  # at either end of the SDE too, where the rest is 0 / 0
        alpha, sigma = self.level.alpha, self.level.sigma
        det = alpha * self.b - sigma * self.a
        c_x, c_F = (p * self.b - q * self.a) / det, (q * alpha - p * sigma) / det
        return expand(c_x, self.x) * self.x + expand(c_F, self.x) * self.F

    @property
    def x0(self) -> Tensor:
        """E[x0 | x_t], the denoised state."""
        return self.view(1.0, 0.0)

    @property
    def eps(self) -> Tensor:
        """E[eps | x_t], the noise."""
        return self.view(0.0, 1.0)

    @property
    def score(self) -> Tensor:
        """-eps / sigma; ValueError of a model that knows a flow alone."""
        if self.flow_only:
            raise ValueError(
                "This model knows a flow and no score (flow_only=True): ask for its x0, eps or "
                "velocity, and solve with eta = 0."
            )
        return self.view(*predict_score(self.level))

    @property
    def v(self) -> Tensor:
        """alpha eps - sigma x0."""
        return self.view(*predict_v(self.level))

    @property
    def velocity(self) -> Tensor:
        """dx/dt of the probability-flow ODE, alpha' x0 + sigma' eps."""
        return self.drift(0.0)

    def drift(self, eta: Coefficient) -> Tensor:
        """f x - (1 + eta^2)/2 g^2 score, alpha' x0 + (sigma' + eta^2 (sigma' - f sigma)) eps."""
        level = self.level
        if self.b is level.to_score:  # of a score it is finite where sigma leaves zero, as VP's
            half = (1 + eta**2) / 2 * level.g2
            return expand(level.f, self.x) * self.x - expand(half, self.x) * self.F
        if isinstance(eta, float | int) and eta == 0:
            return self.view(*predict_velocity(level))
        q = level.d_sigma + eta**2 * (level.d_sigma - level.f * level.sigma)
        return self.view(level.d_alpha, q)

    # Outputs of other models, made of this one's: they are F of the same target.

    def moved(self, score: Tensor) -> Tensor:
        """F where the score is moved by so much: eps by -sigma, x0 by sigma^2 / alpha of it."""
        alpha, sigma = self.level.alpha, self.level.sigma
        if self.b is self.level.to_score:  # it is the score itself, at either end too
            return self.F + score
        c = -sigma * self.b if same(self.a, 0.0) else sigma * (self.a * sigma / alpha - self.b)
        return self.F + expand(c, self.x) * score

    def pushed(self, x0: Tensor) -> Tensor:
        """F where x0 is moved by so much, and eps so that x stays: nothing cancels."""
        return self.F + expand(self.of_x0, self.x) * x0

    def replaced(self, x0: Tensor) -> Tensor:
        """F where x0 is another one, and eps so that x stays; its very bits for a model of x0."""
        if same(self.a, 1.0) and same(self.b, 0.0):
            return x0
        return expand(self.b / self.level.sigma, self.x) * self.x + expand(self.of_x0, self.x) * x0

    @property
    def of_x0(self) -> Coefficient:
        """dF / dx0 at a given x, a - b alpha / sigma."""
        if same(self.b, 0.0):
            return self.a
        return self.a - self.b * self.level.alpha / self.level.sigma


def same(p: Coefficient, a: Coefficient) -> bool:
    """True where two coefficients are known to be one without a look at a tensor's values."""
    return p is a or (isinstance(p, float) and isinstance(a, float) and p == a)


@dataclass(frozen=True, eq=False)
class ScorePrediction(Prediction):
    """The prediction on an SDE without marginals: the score (b, *) is all there is."""

    sde: SDE
    x: Tensor
    t: Tensor
    F: Tensor
    more: Any = None

    @property
    def score(self) -> Tensor:
        """The network's output."""
        return self.F

    def drift(self, eta: Coefficient) -> Tensor:
        """drift - (1 + eta^2)/2 G G^T score."""
        G, score = diffusion_of(self.sde, self.x, self.t), self.F
        if self.sde.matrix:
            half = (G @ (G.mT @ score.unsqueeze(-1))).squeeze(-1) / 2
        else:
            half = G**2 * score / 2
        forward = self.sde.drift(self.x, self.t)
        if isinstance(self.x, Tensor):
            forward = forward.to(self.x)  # a drift of float64 times would promote the state
        return forward - (1 + eta**2) * half


def predicted(
    sde: SDE,
    target: Target,
    x: Tensor,
    F: Tensor,
    level: Instant,
    more: Any = None,
    flow_only: bool = False,
) -> Any:
    """The prediction that a network's output F (b, *) at state x (b, *) and a level is.

    ValueError for an output of another shape.
    """
    if isinstance(F, Tensor) and F.shape != x.shape:
        raise ValueError(
            f"A model's output has its state's shape {tuple(x.shape)}, but this one has "
            f"{tuple(F.shape)}: look at what output(x, level) returns."
        )
    if isinstance(level, Level):
        return LinearPrediction(x, F, level, *target(level), more, flow_only)
    return ScorePrediction(sde, x, level.t, F, more)
