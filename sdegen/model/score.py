"""Score models: a network, the SDE it lives in, and what its output means."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sdegen.checks import one_of
from sdegen.model.prediction import PREDICTIONS, PredictEDM, Target, predicted
from sdegen.sde.level import Instant, expand, linear
from sdegen.sde.process import SDE, LinearSDE

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


def label_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type of time labels for a network of some type: float32 beside a shorter one."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


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
