"""Score models: a network, the SDE it lives in, and what its output means.

A prediction type is two coefficients: the network's target is  F = a x0 + b eps.  Together with
x = alpha x0 + sigma eps every other view  p x0 + q eps  follows from one call,

    p x0 + q eps = [ (p b - q a) x + (q alpha - p sigma) F ] / (alpha b - sigma a),

by multiplying coefficients, not tensors: the view that the network was trained for is its output
to the last bit, and nothing cancels at small sigma.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn, sqrt

from sdegen.sde import SDE, Instant, Level, LinearSDE, expand

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
    return 0.0, -1 / level.sigma


def predict_v(level: Level) -> tuple[Coefficient, Coefficient]:
    """v = alpha eps - sigma x0.  Salimans & Ho (2022), app. D."""
    return -level.sigma, level.alpha


def predict_velocity(level: Level) -> tuple[Coefficient, Coefficient]:
    """The flow's velocity, alpha' x0 + sigma' eps; eps - x0 on ``Flow``.  Lipman et al. (2023)."""
    return level.d_alpha, level.d_sigma


@dataclass(frozen=True)
class PredictEDM:
    """EDM's F, the residual of unit variance.  Karras et al. (2022), eq. 7 and table 1."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
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

TIME_LABELS: dict[str, Callable[[Instant], Tensor]] = {
    "t": lambda level: level.t,
    "999t": lambda level: 999 * level.t,
    "1000t-1": lambda level: 1000 * level.t - 1,
    "sigma": lambda level: linear(level).sigma,
    "lam": lambda level: linear(level).lam,
    "c_noise": lambda level: -linear(level).lam / 4,
}
"""How a network is told the time: the SDE's own t, Song et al.'s 999 t, DDPM's step number 0..999
on ``DiscreteVPSDE``, sigma (VE), half log-SNR, and EDM's ln(sigma / alpha) / 4."""


def linear(level: Instant) -> Level:
    """The level as that of a linear SDE, or an error that says why it must be one."""
    if not isinstance(level, Level):
        raise ValueError(
            "This needs the marginals of a LinearSDE, but the SDE gives only drift and diffusion."
        )
    return level


def one_of(name: str, what: str, table: dict[str, Any]) -> Any:
    """The table's entry of that name, or an error that lists the names."""
    if name not in table:
        raise ValueError(f"Unknown {what} {name!r}: it must be one of {', '.join(sorted(table))}.")
    return table[name]


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

    def view(self, p: Coefficient, q: Coefficient) -> Tensor:
        """p x0 + q eps, (b, *)."""
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
        """-eps / sigma."""
        return self.view(*predict_score(self.level))

    @property
    def v(self) -> Tensor:
        """alpha eps - sigma x0."""
        return self.view(*predict_v(self.level))

    @property
    def velocity(self) -> Tensor:
        """dx/dt of the probability-flow ODE, alpha' x0 + sigma' eps."""
        return self.view(*predict_velocity(self.level))

    def drift(self, eta: Coefficient) -> Tensor:
        """f x - (1 + eta^2)/2 g^2 score, as  alpha' x0 + (sigma' + eta^2 g^2 / (2 sigma)) eps."""
        level = self.level
        if isinstance(eta, float | int) and eta == 0:
            return self.velocity
        return self.view(level.d_alpha, level.d_sigma + eta**2 * level.g2 / (2 * level.sigma))


@dataclass(frozen=True, eq=False)
class ScorePrediction(Prediction):
    """The prediction on an SDE without marginals: the score (b, *) is all there is."""

    sde: SDE
    x: Tensor
    t: Tensor
    F: Tensor

    @property
    def score(self) -> Tensor:
        """The network's output."""
        return self.F

    def drift(self, eta: Coefficient) -> Tensor:
        """drift - (1 + eta^2)/2 G G^T score."""
        G, score = self.sde.diffusion(self.x, self.t), self.F
        if self.sde.matrix:
            half = (G @ (G.mT @ score.unsqueeze(-1))).squeeze(-1) / 2
        else:
            half = G**2 * score / 2
        return self.sde.drift(self.x, self.t) - (1 + eta**2) * half


def label_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of time labels for a network of some type: float32 beside a shorter one."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def predicted(sde: SDE, target: Target, x: Tensor, F: Tensor, level: Instant) -> Any:
    """The prediction that a network's output F (b, *) at state x (b, *) and a level is."""
    if isinstance(level, Level):
        return LinearPrediction(x, F, level, *target(level))
    return ScorePrediction(sde, x, level.t, F)


# ------------------------------------------------------------------------------------- the model


class ScoreModel(nn.Module):
    """A network ``net(x, label, **conditions)`` read as a score model of an SDE.

    net:       any callable; gets x (b, *) and a time label (b,), returns x's shape.
    predicts:  what it returns: "eps", "x0", "score", "v", "velocity" (dx/dt of the probability
               flow), "edm" (EDM's F, which also fixes c_in and the label c_noise), or a function
               of the Level giving (a, b) with output = a x0 + b eps. An SDE that is not linear
               knows "score" alone.
    time:      the label: "t" (default), "999t", "1000t-1", "sigma", "lam", "c_noise" (the default
               of "edm"), or a function of the Level.
    scale_input: divide x by its standard deviation for data of std ``sigma_data``
               (as EDM's c_in; always so for "edm", otherwise the network sees x itself).
    data_range: (low, high) of the data it was trained on: likelihoods, bounds and encodings then
               refuse data outside.

    ``nfe`` counts the calls of the network, here and nowhere else. ValueError for an unknown
    prediction or label, for an SDE that cannot give what is asked, and for a network whose output
    does not have its input's shape.
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        sde: SDE,
        predicts: str | Target = "eps",
        *,
        time: str | Callable[[Instant], Tensor] | None = None,
        sigma_data: float = 0.5,
        scale_input: bool = False,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(sde, SDE):
            raise ValueError(f"ScoreModel's second argument is an SDE, but it is {sde!r}.")
        if not isinstance(sde, LinearSDE) and (predicts != "score" or scale_input):
            raise ValueError(
                f"{type(sde).__name__} has no marginals, so its model can only predict the score "
                f"of unscaled states: use predicts='score', not {predicts!r}."
            )
        edm = PredictEDM(sigma_data)
        default = "c_noise" if predicts == "edm" else "t"
        time = default if time is None else time
        self.net, self.sde = net, sde
        self.scale = edm if scale_input or predicts == "edm" else None
        self.target: Target = (
            one_of(predicts, "prediction", {**PREDICTIONS, "edm": edm})
            if isinstance(predicts, str)
            else predicts
        )
        self.label: Callable[[Instant], Tensor] = (
            one_of(time, "time label", TIME_LABELS) if isinstance(time, str) else time
        )
        if data_range is not None and not data_range[0] < data_range[1]:
            raise ValueError(f"data_range is (low, high), but it is {data_range!r}.")
        self.data_range = data_range
        self.conditions: dict[str, Any] = {}
        self._calls = [0]
        try:
            self.label(sde(sde.T))
        except ValueError as error:
            raise ValueError(f"The time label {time!r} cannot be made: {error}") from None

    @property
    def nfe(self) -> int:
        """Calls of the network so far, through this model and every ``given`` copy of it."""
        return self._calls[0]

    def count(self, calls: int) -> None:
        """Count calls of the network that were made without this object, as by a CUDA graph."""
        self._calls[0] += calls

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are (the CPU if it has none)."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype | None:
        """The network's own floating type, None if it has no parameters."""
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), None)

    def given(self, **conditions: Any) -> ScoreModel:
        """This model with keyword arguments for its network fixed, e.g. class labels y (b,)."""
        model = copy.copy(self)
        model.conditions = {**self.conditions, **conditions}
        return model

    def rows(self, index: Tensor, b: int) -> ScoreModel:
        """This model for some samples of a batch of b: conditions (b, *) are cut to those (k,)."""
        return self.given(
            **{
                name: value[index]
                if isinstance(value, Tensor) and value.ndim and len(value) == b
                else value
                for name, value in self.conditions.items()
            }
        )

    def within(self, x: Tensor) -> Tensor:
        """Data x (b, *) itself; ValueError where it leaves ``data_range``, which NaN does not."""
        if self.data_range is None:
            return x
        low, high = self.data_range
        more = 1e-6 * (high - low)  # of rounding
        out = ((x < low - more) | (x > high + more)).reshape(len(x), -1).any(1)
        if bool(out.any()):
            i = int(out.nonzero()[0])
            raise ValueError(
                f"The model was trained on data in [{low:g}, {high:g}], but sample {i} reaches "
                f"from {float(x[i].min()):g} to {float(x[i].max()):g}: scale it as the training "
                "data was."
            )
        return x

    def forward(self, x: Tensor, t: Tensor | float | Instant) -> Any:
        """The prediction at state x (b, *) and time t, () or (b,), or a level already made."""
        level = t if isinstance(t, Instant) else self.sde(t)
        return predicted(self.sde, self.target, x, self.call(x, level), level)

    def call(self, x: Tensor, level: Instant) -> Tensor:
        """The network's output F (b, *) in x's dtype: one evaluation."""
        if not x.is_floating_point() or x.ndim < 1:
            raise ValueError(
                f"A state is a floating-point tensor (b, *), but this one is {x.dtype} of shape "
                f"{tuple(x.shape)}; scale integer images first, as sdegen.data.from_uint8 does."
            )
        if level.t.ndim and level.t.shape != x.shape[:1]:
            raise ValueError(
                f"Times are of shape () or ({len(x)},) for a batch of {len(x)}, "
                f"but they are {tuple(level.t.shape)}."
            )
        # Adding a 0-d CPU tensor hands its value to the kernel: no copy, no synchronisation.
        dtype = self.dtype or x.dtype
        exact = label_dtype(dtype)
        label = x.new_zeros(len(x), dtype=exact) + self.label(level).to(exact)
        c_in = self.c_in(level)
        return self.evaluate(x if c_in is None else expand(c_in, x) * x, label, dtype)

    def labels(self, levels: Instant) -> list[float]:
        """The time labels of levels (n,)."""
        return [float(c) for c in self.label(levels).expand(levels.t.shape).tolist()]

    def c_in(self, level: Instant) -> Tensor | None:
        """What a state is multiplied by before the network sees it; None: nothing."""
        if self.scale is None:
            return None
        at = linear(level)
        return ((at.alpha * self.scale.sigma_data) ** 2 + at.sigma**2).rsqrt()

    def evaluate(self, inputs: Tensor, label: Tensor, dtype: torch.dtype) -> Tensor:
        """The network, of a floating type, at inputs (b, *), scaled already, and labels (b,).

        Here, and nowhere else, calls are counted.
        """
        self._calls[0] += 1
        x = inputs if inputs.dtype == dtype else inputs.to(dtype)
        F = self.net(x, label, **self.conditions)
        if F.shape != inputs.shape:
            raise ValueError(
                f"The network must return its input's shape {tuple(inputs.shape)}, "
                f"but it returned {tuple(F.shape)}."
            )
        return F if F.dtype == inputs.dtype else F.to(inputs.dtype)
