"""Integrators of other libraries as solvers: the same call, the same Solution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.checks import one_of, whole
from sdegen.model.denoiser import cost_of
from sdegen.sde.level import Instant
from sdegen.solvers.adaptive import check_tolerances
from sdegen.solvers.classical import within_step
from sdegen.solvers.equation import Reverse
from sdegen.solvers.solver import Preset, Solver, Status, Step, Tally
from sdegen.solvers.traits import Traits


class Method(NamedTuple):
    """Of a library: its order, and the drifts it evaluates in a step (0: it decides itself)."""

    order: int
    calls: int = 0


TORCHDIFFEQ = {
    "dopri5": Method(5),
    "dopri8": Method(8),
    "bosh3": Method(3),
    "fehlberg2": Method(2),
    "adaptive_heun": Method(2),
    "scipy_solver": Method(5),
    "euler": Method(1, 1),
    "midpoint": Method(2, 2),
    "heun2": Method(2, 2),
    "heun3": Method(3, 3),
    "rk4": Method(4, 4),
    "explicit_adams": Method(4),
    "implicit_adams": Method(4),
}
"""All of torchdiffeq 0.2.5. Its Adams methods start with RK4 and change their order on the way."""

TORCHSDE = {
    "euler": Method(1, 1),
    "milstein": Method(1, 1),
    "srk": Method(3, 10),
    "euler_heun": Method(1, 1),
    "heun": Method(2, 2),
    "midpoint": Method(2, 2),
    "reversible_heun": Method(2, 2),
    "log_ode": Method(2, 2),
}
"""All of torchsde 0.2.6 but the adjoint's, with their order where eta = 0."""

THEIRS = "its steps are another library's"
ITO = ("euler", "milstein", "srk")
SCIPY = {"RK45": 5, "RK23": 3, "DOP853": 8, "Radau": 5, "BDF": 5, "LSODA": 5}


def worst_rms(v: Tensor) -> Tensor:
    """The largest root-mean-square over the samples of v (b, *): no sample hides in the mean."""
    return v.reshape(len(v), -1).square().mean(1).amax().sqrt()


class Spent(Exception):
    """A solver has called the network as often as it may."""


def lost(v: Tensor) -> Tensor:
    """True for each sample of v (b, *) that is not finite, (b, 1, ...)."""
    return ~v.isfinite().reshape(len(v), -1).all(1).reshape(-1, *[1] * (v.ndim - 1))


@dataclass(frozen=True)
class TorchDiffEq(Solver):
    """torchdiffeq's methods on the probability-flow ODE.

    method:     an adaptive pair ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"), its
                SciPy wrapper, or one of fixed steps ("euler", "midpoint", "heun2", "heun3", "rk4",
                "explicit_adams", "implicit_adams").
    rtol, atol: tolerances of Song et al. (2021), who use 1e-5 for both.
    n:          equal steps between two levels of the walk, for the methods of fixed steps: the
                Adams methods have a history only inside.
    max_nfe:    network evaluations between two levels; more, and all samples are NaN, status
                BUDGET.

    The error norm is the worst sample's, the model is never asked outside the step, whose end is
    hit exactly. A sample whose drift is not finite is NaN, and stops no other. ValueError for an
    unknown method, a tolerance that is not positive, and a solve that cannot go on.
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    n: int = 1
    max_nfe: int = 10_000
    presets: ClassVar = {
        "torchdiffeq_dopri5": Preset({}, "torchdiffeq; Song et al. (2021), sec. 4.3"),
        "torchdiffeq_dopri8": Preset({"method": "dopri8"}, "torchdiffeq"),
        "torchdiffeq_bosh3": Preset({"method": "bosh3"}, "torchdiffeq"),
        "torchdiffeq_rk4": Preset({"method": "rk4"}, "torchdiffeq, the 3/8 rule"),
        "torchdiffeq_adams": Preset({"method": "implicit_adams", "n": 50}, "torchdiffeq"),
    }

    def __post_init__(self) -> None:
        one_of(self.method, "torchdiffeq method", TORCHDIFFEQ)
        check_tolerances(self.rtol, self.atol)
        whole("TorchDiffEq's n", self.n, 1)
        whole("max_nfe", self.max_nfe, 1)

    @property
    def traits(self) -> Traits:
        """The order of a pair's higher member; n steps of a method that takes them as told."""
        order, calls = TORCHDIFFEQ[self.method]
        return Traits(order=order, calls=self.n * calls, adaptive=not calls, why_not_linear=THEIRS)

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """From t to s with as many inner steps as the method takes."""
        from torchdiffeq import odeint

        before, sick = p.model.nfe, lost(x)

        def field(time: Tensor, y: Tensor) -> Tensor:
            nonlocal sick
            if p.model.nfe - before + cost_of(p.model) > self.max_nfe:
                raise Spent
            inside = within_step(time.detach().cpu().double(), t, s)
            drift = p.drift(y, p.sde(inside))
            sick = sick | lost(drift)  # not in place: a graph of gradients keeps each
            return drift.masked_fill(sick, 0.0)  # who is lost stays where it was

        x, ends = x.masked_fill(sick, 0.0), torch.stack([t.t, s.t]).to(x.device)
        options: dict[str, Any] = {"norm": worst_rms, "step_t": ends[1:]}
        if self.method == "scipy_solver":
            options = {"solver": "LSODA"}
        elif self.method.endswith("adams") or TORCHDIFFEQ[self.method].calls:
            inner = torch.lerp(ends[0], ends[1], torch.arange(self.n + 1).to(ends) / self.n)
            inner[-1] = ends[1]
            options = {"grid_constructor": lambda func, y0, times: inner}
        status = torch.zeros(len(x), dtype=torch.int8, device=x.device)
        try:
            path = odeint(
                field, x, ends, rtol=self.rtol, atol=self.atol, method=self.method, options=options
            )
            end = path[-1]
        except Spent:
            end = torch.full_like(x, torch.nan)
            status.fill_(int(Status.BUDGET))
        except AssertionError as error:
            raise ValueError(
                f"{self.method} cannot go on between t = {t.t:.6g} and t = {s.t:.6g} ({error}): "
                "are the model's values too large, or the tolerances too small?"
            ) from error
        status = status.masked_fill(sick.reshape(len(x)), int(Status.NONFINITE))
        nfe = torch.full((len(x),), p.model.nfe - before)
        return Step(end.masked_fill(sick, torch.nan), tally=Tally(nfe, status))


@dataclass(frozen=True)
class SciPy(Solver):
    """SciPy's solve_ivp on the probability-flow ODE, each sample on its own.

    For verification, not for speed: every call of the network sees one sample, in float64 on the
    CPU's side. method: "RK45", "RK23", "DOP853", "Radau", "BDF" or "LSODA". A sample whose solve
    fails is NaN, with its status: BUDGET where max_nfe network evaluations between two levels are
    not enough. ValueError for an unknown method or a tolerance that is not positive.
    """

    method: str = "RK45"
    rtol: float = 1e-5
    atol: float = 1e-5
    max_nfe: int = 10_000
    presets: ClassVar = {
        "scipy": Preset({}, "SciPy's RK45, Song et al. (2021), their code"),
        "scipy_dop853": Preset({"method": "DOP853", "rtol": 1e-10, "atol": 1e-10}, "SciPy"),
    }

    def __post_init__(self) -> None:
        one_of(self.method, "SciPy method", SCIPY)
        check_tolerances(self.rtol, self.atol)
        whole("max_nfe", self.max_nfe, 1)

    @property
    def traits(self) -> Traits:
        """The method's order; the highest of those whose order varies."""
        order = SCIPY[self.method]
        return Traits(order=order, calls=0, adaptive=True, why_not_linear=THEIRS)

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """From t to s, sample by sample."""
        b = len(x)
        if hasattr(p.model, "check_conditions"):  # a part of too many would be there
            p.model.check_conditions(b)
        ends, nfe, status = [], torch.zeros(b, dtype=torch.int64), torch.zeros(b, dtype=torch.int8)
        for i in range(b):
            calls = p.model.nfe
            index = torch.tensor([i], device=x.device)
            end, status[i] = self.one(p.take(index), x[i : i + 1], t, s)
            nfe[i] = p.model.nfe - calls
            ends.append(end)
        return Step(torch.cat(ends), tally=Tally(nfe, status.to(x.device)))

    def one(self, p: Reverse, x: Tensor, t: Instant, s: Instant) -> tuple[Tensor, int]:
        """One sample (1, *) and its status."""
        from scipy.integrate import solve_ivp

        before = p.model.nfe

        def field(time: float, y: Any) -> Any:
            if p.model.nfe - before + cost_of(p.model) > self.max_nfe:
                raise Spent
            at = p.sde(within_step(torch.tensor(float(time), dtype=torch.float64), t, s))
            state = torch.as_tensor(y).to(x.device).reshape(x.shape)
            drift = p.drift(state, at).cpu().double().numpy().ravel()
            if not math.isfinite(abs(drift).sum()):
                raise FloatingPointError
            return drift

        start = x.detach().cpu().double().numpy().ravel()
        failed = torch.full_like(x, torch.nan)
        if not bool(x.isfinite().all()):
            return failed, Status.NONFINITE
        try:
            span = (float(t.t), float(s.t))
            out = solve_ivp(field, span, start, self.method, rtol=self.rtol, atol=self.atol)
        except FloatingPointError:
            return failed, Status.NONFINITE
        except Spent:
            return failed, Status.BUDGET
        if not out.success:
            return failed, Status.STALLED
        return torch.as_tensor(out.y[:, -1]).reshape(x.shape).to(x), Status.OK


@dataclass(frozen=True)
class TorchSDE(Solver):
    """torchsde's methods on the reverse SDE, any eta, states of any shape.

    method: "euler", "milstein" or "srk" (Ito), "euler_heun", "heun", "midpoint",
    "reversible_heun" or "log_ode" (Stratonovich: the same equation where noise is additive). One
    step of it between two levels of the walk, in float64 time, with the noise and, for "srk", the
    areas of the reverse equation's own source, so that a sample depends on its own seed alone.
    ValueError for an unknown method.
    """

    method: str = "srk"
    eta = 1.0
    presets: ClassVar = {
        "torchsde": Preset({}, "torchsde's stochastic Runge-Kutta"),
        "torchsde_euler": Preset({"method": "euler"}, "torchsde"),
        "torchsde_heun": Preset({"method": "heun"}, "torchsde"),
    }

    def __post_init__(self) -> None:
        one_of(self.method, "torchsde method", TORCHSDE)

    @property
    def traits(self) -> Traits:
        """The order where eta = 0, and drifts of a step; where the diffusion is a matrix "srk"
        takes fewer."""
        order, calls = TORCHSDE[self.method]
        return Traits(
            order=order,
            strong=1.5 if self.method == "srk" else 1.0,
            calls=calls,
            any_eta=True,
            follows_flow=False,
            why_not_linear=THEIRS,
        )

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """One step; torchsde's clock is t.t - time, which rises."""
        import torchsde

        equation = Forwards(p, x, t, s, "ito" if self.method in ITO else "stratonovich")
        ends = torch.stack([torch.zeros_like(t.t), t.t - s.t]).to(x.device)
        y = torchsde.sdeint(
            equation,
            x.reshape(len(x), -1),
            ends,
            bm=equation.motion(),
            method=self.method,
            dt=ends[1],
        )
        return Step(y[-1].reshape(x.shape))


class Forwards:
    """The reverse equation from t to s as torchsde wants it: (b, n) states, a clock that rises."""

    def __init__(self, p: Reverse, x: Tensor, t: Instant, s: Instant, sde_type: str) -> None:
        self.p, self.like, self.t, self.s, self.sde_type = p, x, t, s, sde_type
        self.asked = False
        self.noise_type = "additive" if p.sde.matrix else "diagonal"

    def at(self, time: Tensor) -> Instant:
        """The level where torchsde's clock shows a time; never outside the step."""
        return self.p.sde((self.t.t - time.detach().cpu().double()).clamp(self.s.t, self.t.t))

    def f(self, time: Tensor, y: Tensor) -> Tensor:
        """The drift along the rising clock, (b, n)."""
        if not self.asked:
            # torchsde asks once more than its method does, for the shape alone.
            self.asked = True
            return torch.zeros_like(y)
        return -self.p.drift(y.reshape(self.like.shape), self.at(time)).reshape(y.shape)

    def g(self, time: Tensor, y: Tensor) -> Tensor:
        """The diffusion: (b, n), or (b, n, m) with the matrix on a state's last axis."""
        x = y.reshape(self.like.shape)
        G = torch.as_tensor(self.p.diffusion(x, self.at(time))).to(x)
        if not self.p.sde.matrix:
            return G.expand(x.shape).reshape(y.shape)
        d, m = G.shape[-2:]
        blocks = G.expand(*x.shape[:-1], d, m).reshape(len(x), -1, d, m)
        return torch.stack([torch.block_diag(*each) for each in blocks])

    def motion(self) -> Any:
        """The equation's noise as torchsde's Brownian motion over the whole step."""
        from torchsde import BaseBrownian

        p, x, t, s = self.p, self.like, self.t, self.s
        h = (t.t - s.t).to(x.device)
        z = p.draw(x, t, s) if p.noisy else torch.zeros_like(p.noise_like(x, t))
        z = z.reshape(len(x), -1)

        class Motion(BaseBrownian):
            """Increments of this one step."""

            dtype, device, shape = z.dtype, z.device, z.shape
            levy_area_approximation = "foster"

            def __repr__(self) -> str:
                return "Motion()"

            def __call__(
                self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False
            ) -> Any:
                W = z * h.sqrt()
                if return_U:
                    a = p.draw(x, t, s, area=True).reshape(z.shape) if p.noisy else z
                    return W, h**1.5 * (z + a / math.sqrt(3)) / 2
                # Additive noise commutes: Levy's area between coordinates has no effect.
                return (W, W.new_zeros(*W.shape, W.shape[1])) if return_A else W

        return Motion()
