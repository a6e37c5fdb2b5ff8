"""Inverse problems: y = A x0 + std z is seen, and x0 is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sdegen.checks import number, one_of, whole
from sdegen.guidance.classifier import leaf, seen_through
from sdegen.guidance.operators import Operator, conjugate_gradients
from sdegen.guidance.wrapped import (
    Strength,
    Wrapped,
    at_large,
    check_strength,
    refuse_end,
    refuse_where_eps_is_lost,
    strength,
    with_x0,
)
from sdegen.model.denoiser import Denoiser, refuse_flow_only
from sdegen.model.prediction import LinearPrediction
from sdegen.sde.level import Instant, Level, expand

Spread = Literal["none", "identity", "diagonal", "moments"]
"""What is taken for the covariance of x0 given x_t: 0; r^2 I with r^2 = sigma^2 / (sigma^2 +
alpha^2), of N(m, I) data; the diagonal that Cov 1 has; Cov = sigma^2 / alpha J^T, the model's own
with J = d E[x0 | x_t] / d x_t."""


Linear = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class PriorCovariance:
    """(P^-1 + alpha^2 / sigma^2)^-1, the covariance of x0 given x_t where data are N(m, P).

    P: of all values of a state, (n, n), or the variance of each, of a state's own shape.
    ValueError for a P that is no covariance, and one that is not a state's.
    """

    P: Tensor

    def __post_init__(self) -> None:
        P = self.P
        if not isinstance(P, Tensor):
            raise ValueError(f"P is a tensor, as torch.tensor([1.0, 0.5]), but it is {P!r:.60}.")
        fine = P.is_floating_point() and bool(P.isfinite().all())
        if not fine or not (symmetric(P) or bool((P >= 0).all())):
            raise ValueError(
                "A prior's covariance is a symmetric matrix (n, n), or variances >= 0 of a "
                f"state's shape, but P is {P.dtype} of shape {tuple(P.shape)} and neither."
            )

    def to(self, device: torch.device) -> PriorCovariance:
        """The same where a model is."""
        return PriorCovariance(self.P.to(device))

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Variances (n,) and axes (n, n) of a full covariance."""
        var, axes = torch.linalg.eigh(self.P.double())
        if not symmetric(self.P) or bool(var[0] < -1e-6 * var[-1]):
            raise ValueError(
                "A prior's covariance is symmetric and has no negative variance along any axis, "
                f"but P has one of {var[0]:g}, or is not symmetric."
            )
        return var.clamp(min=0), axes

    def check(self, x: Tensor) -> None:
        """ValueError for a P of other states than x (b, *), or that is none of theirs."""
        n = x[0].numel()
        if self.P.shape not in ((n, n), x.shape[1:]):
            raise ValueError(
                f"P is {tuple(self.P.shape)}, but a covariance of states {tuple(x.shape)} is "
                f"({n}, {n}), or variances {tuple(x.shape[1:])}."
            )
        if self.P.shape != x.shape[1:]:
            self.spectrum  # noqa: B018, which looks at it

    def at(self, level: Level, x: Tensor) -> Linear:
        """v -> S v for v like states x (b, *) at a level."""
        a, s = (expand(c**2, x) for c in (level.alpha, level.sigma))
        if self.P.shape == x.shape[1:]:
            return lambda v: shrunk(self.P.to(x), a, s) * v
        if level.alpha.ndim > level.t.ndim:
            raise ValueError(
                "A full covariance is of one level, but these differ between coordinates: give "
                "the variance of each value."
            )
        var, axes = (part.to(x) for part in self.spectrum)
        a, s = (c.reshape(-1, 1) if isinstance(c, Tensor) and c.ndim else c for c in (a, s))
        return lambda v: ((v.reshape(len(v), -1) @ axes * shrunk(var, a, s)) @ axes.T).reshape(
            v.shape
        )


def symmetric(P: Tensor) -> bool:
    """Whether it is a square matrix and its own transposed."""
    square = P.ndim == 2 and P.shape[0] == P.shape[1]
    return square and torch.allclose(P, P.T, rtol=1e-5, atol=1e-8)


def shrunk(P: Tensor, a2: Any, s2: Any) -> Tensor:
    """P sigma^2 / (sigma^2 + alpha^2 P), 0 where P is."""
    return torch.where(P > 0, P * s2 / (s2 + a2 * torch.where(P > 0, P, 1)), 0)


FEW, MOST = 5, 100
"""Iterations of conjugate gradients at most, unless a number is given: where each is a product
with the network's Jacobian, or row sums of it make a system that may not be positive, and where
it is, and asks the operator alone."""


def usual_iterations(within: Spread | PriorCovariance, values: int) -> int:
    """For a measurement of so many values. Where they are cheap they are twice as many as A can
    have rank, as rounding makes less of them than they are."""
    few = within in ("moments", "diagonal")
    return min(values, FEW) if few else min(2 * values, MOST)


class Observed(Wrapped):
    """x0 + S_out A^T (std^2 + A S_in A^T)^-1 (y - A x0): the posterior's mean.

    Bayes' rule for x0 ~ N(E[x0 | x_t], S) given y = A x0 + std z: exact where ``out`` and
    ``within`` are the true covariance, which a Gaussian's is ("moments"); an approximation
    elsewhere, and which of them is better depends on the problem (docs/inverse.md).

    A:          an ``Operator``, or any differentiable function of x0, linearised where it is.
    std:        of the noise, > 0 but with both spreads "identity" and an Operator: then 0 is
                projection by A^+.
    out, within: S_out, S_in, by name, or a ``PriorCovariance``. "moments" is a product with the
                network's Jacobian each time.
    iterations: of conjugate gradients: as many as A has rank are exact, but for rounding. None:
                as many as y has values, at most 5, with "moments" within, where each is a product
                with the Jacobian, and "diagonal"; else twice as many as values, at most 100.
    most:       x0 is moved by at most so many times what Bayes' rule with a symmetric S_out says
                along the same direction (``along``): with 1 what is exact stays, and A x0 is moved
                by at most |y - A x0| where <w, A d> >= 0. What A does not see, as an image's hole,
                is not bounded where a network's Jacobian is huge. Infinite: as published.

    dps, pigdm, mmps, tmpd, ddnm, jfps are choices of these. ValueError for a y of another shape
    than A x0, a std that is not positive, and an SDE without marginals, before the network is
    called.
    """

    own = ("y", "scale")

    def __init__(
        self,
        model: Denoiser,
        y: Tensor,
        A: Callable[[Tensor], Tensor],
        std: float,
        *,
        out: Spread | PriorCovariance = "moments",
        within: Spread | PriorCovariance = "moments",
        iterations: int | None = None,
        scale: Strength = 1.0,
        most: float = math.inf,
    ) -> None:
        super().__init__(model)
        with_x0(model, "Observed")
        refuse_flow_only(model, "Observed")
        if not callable(A):
            raise ValueError(
                "A is an Operator or a function of x0, as lambda x: x @ matrix.T, but it is "
                f"{A!r:.60}."
            )
        for name in (out, within):
            if not isinstance(name, PriorCovariance):
                one_of(name, "spread", dict.fromkeys(get_args(Spread)))
        if not isinstance(out, PriorCovariance) and out not in ("moments", "identity"):
            raise ValueError(
                f"S_out is 'moments', 'identity' or a PriorCovariance, but out = {out!r}."
            )
        projected = out == within == "identity" and isinstance(A, Operator)
        if not (number("std", std) > 0 or (std == 0 and projected)):
            raise ValueError(
                f"std is the noise's, > 0, but it is {std!r}: without noise take "
                "ddnm(model, y, A), which projects, or a small std."
            )
        check_seen(y)
        k = usual_iterations(within, y[0].numel()) if iterations is None else iterations
        self.iterations, self.std = whole("iterations", k), float(std)
        if not (most == math.inf or number("most", most, 0) > 0):
            raise ValueError(f"most is above 0, but it is {most!r}.")
        self.most = most
        self.y, self.A, self.scale = y.to(model.device), A, check_strength(scale, model)
        self.out, self.within = (
            each.to(model.device) if isinstance(each, PriorCovariance) else each
            for each in (out, within)
        )
        self.fine: tuple[int, ...] = ()

    @property
    def jumps(self) -> bool:
        """As the scale does."""
        return bool(getattr(self.scale, "jumps", False)) or super().jumps

    def take(self, index: Tensor) -> Observed:
        """What some samples of the batch were seen as."""
        new: Observed = super().take(index)
        A = self.A.take(index) if isinstance(self.A, Operator) else self.A
        return new.changed(A=A, fine=())  # type: ignore[no-any-return]

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F of the model that has seen y."""
        p, push, _ = self.solved(x, level)
        return p.pushed(expand(strength(self.scale, x, level), x) * push)

    def residual(self, x: Tensor, level: Instant) -> Tensor:
        """|r - M w| / |r| of each sample's system M w = r = y - A x0, as far as it was solved."""
        return self.solved(x, level)[2]

    def solved(self, x: Tensor, level: Instant) -> tuple[LinearPrediction, Tensor, Tensor]:
        """The prediction, what x0 is moved by, and how far the system was solved, (b,)."""
        self.check(x)
        refuse_where_eps_is_lost(self.model, level, "What is observed")
        level = at_large(level)
        assert isinstance(level, Level)
        outer, y = torch.is_grad_enabled(), self.y.to(x)
        if "moments" not in (self.out, self.within) and self.within != "diagonal":
            p = self.seen(x, level)  # nothing is differentiated
            return p, *self.push(p.x0, y, level, None)
        refuse_end(level, "What is observed by a product with the Jacobian", "alpha")
        with torch.inference_mode(False), torch.enable_grad():
            state = leaf(x)
            p = self.seen_at_large(state, level)
            x0 = p.x0

            def C(v: Tensor) -> Tensor:
                """Cov[x0 | x_t] v."""
                (back,) = torch.autograd.grad(x0, state, v, retain_graph=True, create_graph=outer)
                self.count(vjps=1)
                return expand(level.sigma**2 / level.alpha, x) * back

            seen = y.clone() if y.is_inference() else y
            push, residual = self.push(x0 if outer else x0.detach(), seen, level, C)
        if outer:
            return p, push, residual
        return replace(p, x=x, F=p.F.detach()), push.detach(), residual.detach()

    def push(
        self, x0: Tensor, y: Tensor, level: Level, C: Callable[[Tensor], Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """S_out A^T w with (std^2 + A S_in A^T) w = y - A x0, and the residual."""
        if self.std == 0:
            assert isinstance(self.A, Operator)
            move = self.A.pinv(y - self.A(x0))
            return move, move.new_zeros(len(move))
        seen, A, AT = linearised(self.A, x0)
        r2 = expand(level.sigma**2 / (level.sigma**2 + level.alpha**2), x0)
        spreads: dict[str, Linear] = {"identity": lambda v: r2 * v}
        if C is not None:
            spreads["moments"] = C
        if self.within == "diagonal":
            assert C is not None
            diagonal = C(torch.ones_like(x0))
            spreads["diagonal"] = lambda v: diagonal * v
        S_in, S_out = (
            each.at(level, x0) if isinstance(each, PriorCovariance) else spreads.get(each)
            for each in (self.within, self.out)
        )
        assert S_out is not None  # ``__init__`` has looked
        var = self.std**2
        r = y - seen
        if S_in is None:
            w, residual = r / var, r.new_zeros(len(r))
        else:
            w, residual = conjugate_gradients(
                lambda u: var * u + A(S_in(AT(u))), r, self.iterations
            )
        move = S_out(AT(w))
        if self.most < math.inf:
            move = expand((self.most * along(A(move), w, r, var)).clamp(0, 1), move) * move
        return move, residual

    def check(self, x: Tensor) -> None:
        """Refuse measurements of another shape than a state's; each shape is looked at once."""
        if x.shape == self.fine:
            return
        check_measured(self.A, self.y, x)
        for each in (self.out, self.within):
            if isinstance(each, PriorCovariance):
                each.check(x)
        self.fine = x.shape


def along(Ad: Tensor, w: Tensor, r: Tensor, var: float) -> Tensor:
    """How far Bayes' rule goes along d = S A^T w, as a part of it, (b,): the t that is best in

        |r - t A d|^2 / var + t^2 <w, A d>,   where <w, A d> = |d|^2 by S^-1 for S = S^T,

    which knows of d no more than A d; 1 where (var + A S A^T) w = r, and so where the rule itself
    was solved; 0 without a d.
    """
    axes = tuple(range(1, Ad.ndim))
    over, under = (Ad * r).sum(axes), (Ad * Ad + var * w * Ad).sum(axes)
    return torch.where(under > 0, over / torch.where(under > 0, under, 1), 0)


def check_seen(y: Tensor) -> None:
    """ValueError for what is no batch of measurements, or not finite."""
    if not isinstance(y, Tensor) or not y.ndim or not len(y) or not y.is_floating_point():
        said = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else repr(y)
        raise ValueError(
            f"y is a floating-point tensor with the batch's axis, (b, *) or (1, *), not {said}."
        )
    if not bool(y.isfinite().all()):
        raise ValueError("What was measured is finite, but y has NaN or infinity.")


def check_measured(A: Callable[[Tensor], Tensor], y: Tensor, x: Tensor) -> None:
    """ValueError for measurements of another shape than A makes of states x (b, *), and an A that
    no gradient goes through, which nothing would follow from."""
    if isinstance(A, Operator):
        seen, fine = A(torch.zeros_like(x)), True
    else:
        seen, fine = seen_through(A, x)
    if not fine:
        raise ValueError(
            "A is a differentiable function of x0, but no gradient comes through it: is it "
            "constant, of whole numbers, rounded, detached or under no_grad?"
        )
    if y.shape[1:] != seen.shape[1:] or len(y) not in (1, len(seen)):
        raise ValueError(
            f"A makes {tuple(seen.shape)} of states {tuple(x.shape)}, but y is {tuple(y.shape)}."
        )


def linearised(A: Callable[[Tensor], Tensor], x0: Tensor) -> tuple[Tensor, Linear, Linear]:
    """A x0, and A and A^T there: an Operator's own, or any function's derivative by products."""
    if isinstance(A, Operator):
        return A(x0), A, A.T
    seen, back, *_ = torch.func.vjp(A, x0)

    def AT(u: Tensor) -> Tensor:
        return back(u)[0]  # type: ignore[no-any-return]

    # A^T u is linear in u, and the transposed of that is A v: every function that has a gradient
    # has this, where forward derivatives are missing for some.
    _, forth, *_ = torch.func.vjp(AT, torch.zeros_like(seen))
    return seen, lambda v: forth(v)[0], AT


dps = partial(Observed, within="none")
"""The Bayes form of Chung et al. (2023): no spread within. It explodes where std is small."""
pigdm = partial(Observed, within="identity")
"""Song et al. (2023a), exact for N(m, I) data with as many iterations as A has rank; one for Mask,
Average and Gray, whose A A^T is a number where it is not 0."""
mmps = Observed
"""Rozet et al. (2024): exact for Gaussians, with as many iterations as A has rank; unless they are
given, they are 5 at most."""
tmpd = partial(Observed, within="diagonal")
"""Boys et al. (2023), exact for Gaussians of diagonal covariance, with as many iterations as A has
rank; unless they are given, they are 5 at most."""


def ddnm(model: Denoiser, y: Tensor, A: Operator, std: float = 0.0) -> Observed:
    """x0 + A^+ (y - A x0): Wang et al. (2023), without a product with the Jacobian.

    ValueError without an A^+, which an Operator has.
    """
    if not isinstance(A, Operator):
        raise ValueError(f"ddnm projects by A^+: A is an Operator, which has pinv, not {A!r}.")
    return Observed(model, y, A, std, out="identity", within="identity")


def jfps(
    model: Denoiser,
    y: Tensor,
    A: Callable[[Tensor], Tensor],
    std: float,
    P: Tensor,
    *,
    iterations: int | None = None,
    scale: Strength = 1.0,
) -> Observed:
    """Posterior sampling without the Jacobian: the data's covariance P is given, and both spreads
    are (P^-1 + alpha^2 / sigma^2)^-1. Exact for N(m, P), with as many iterations as A has rank.

    P: (n, n), or variances of a state's shape: see ``PriorCovariance``.
    """
    S = PriorCovariance(P)
    return Observed(model, y, A, std, out=S, within=S, iterations=iterations, scale=scale)
