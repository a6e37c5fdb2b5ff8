"""Integrators of other libraries as solvers: the same call, the same Solution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdegen.reverse import Reverse
from sdegen.sde import Instant
from sdegen.solvers.solver import Solver, Step

ADAPTIVE = {"dopri5": 5, "dopri8": 8, "bosh3": 3, "fehlberg2": 2, "adaptive_heun": 2}


def worst_rms(v: Tensor) -> Tensor:
    """The largest root-mean-square over the samples of v (b, *): no sample hides in the mean."""
    return v.reshape(len(v), -1).square().mean(1).amax().sqrt()


@dataclass(frozen=True)
class TorchDiffEq(Solver):
    """torchdiffeq's adaptive Runge-Kutta pairs on the probability-flow ODE.

    rtol, atol: tolerances of Song et al. (2021), who use 1e-5 for both. The error norm is the
    worst sample's, the model is never asked outside the step, whose end is hit exactly.
    ValueError for an unknown method, a tolerance that is not positive, and a solve that
    cannot go on (as after a NaN).
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    evals, adaptive = 0, True

    def __post_init__(self) -> None:
        if self.method not in ADAPTIVE:
            raise ValueError(
                f"TorchDiffEq knows {', '.join(ADAPTIVE)}, but method = {self.method!r}."
            )
        if not (self.rtol > 0 and self.atol > 0):
            raise ValueError(
                f"Tolerances must be positive, but rtol = {self.rtol!r}, atol = {self.atol!r}."
            )

    @property
    def order(self) -> int:  # type: ignore[override]
        """Of the pair's higher member."""
        return ADAPTIVE[self.method]

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """From t to s with as many inner steps as the tolerances ask for."""
        from torchdiffeq import odeint

        def field(time: Tensor, y: Tensor) -> Tensor:
            inside = time.detach().cpu().double().clamp(s.t, t.t)
            return p.drift(y, p.sde(inside))

        ends = torch.stack([t.t, s.t]).to(x.device)
        options = {"norm": worst_rms, "step_t": ends[1:]}
        try:
            path = odeint(
                field, x, ends, rtol=self.rtol, atol=self.atol, method=self.method, options=options
            )
        except AssertionError as error:
            raise ValueError(
                f"{self.method} cannot go on between t = {t.t:.6g} and t = {s.t:.6g} ({error}): "
                "does the model return NaN or infinite values?"
            ) from error
        return Step(path[-1])
