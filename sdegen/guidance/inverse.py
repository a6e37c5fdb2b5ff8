"""Inverse problems: y = A x0 + std z is seen, and x0 is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from sdegen.checks import number, one_of, whole
from sdegen.guidance.classifier import leaf
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
from sdegen.model.denoiser import Denoiser
from sdegen.model.prediction import LinearPrediction
from sdegen.sde.level import Instant, Level, expand

Spread = Literal["none", "identity", "diagonal", "moments"]
"""What is taken for the covariance of x0 given x_t: 0; r^2 I with r^2 = sigma^2 / (sigma^2 +
alpha^2), of N(m, I) data; the diagonal that Cov 1 has; Cov = sigma^2 / alpha J^T, the model's own
with J = d E[x0 | x_t] / d x_t."""

MOST = 5
"""Iterations of conjugate gradients, unless a number is given, where a sample has more values."""


class Observed(Wrapped):
    """x0 + S_out A^T (std^2 + A S_in A^T)^-1 (y - A x0): the posterior's mean.

    Bayes' rule for x0 ~ N(E[x0 | x_t], S) given y = A x0 + std z: exact where ``out`` and
    ``within`` are the true covariance, which a Gaussian's is ("moments"); an approximation
    elsewhere, and which of them is better depends on the problem (docs/guidance.md).

    A:          an ``Operator``, or any differentiable function of x0, linearised where it is.
    std:        of the noise, > 0 but with both spreads "identity" and an Operator: then 0 is
                projection by A^+.
    out, within: S_out, S_in, by name. "moments" is a product with the network's Jacobian each
                time.
    iterations: of conjugate gradients: as many as A has rank are exact.

    dps, pigdm, mmps, tmpd, ddnm are choices of these. ValueError for a y of another shape than
    A x0, a std that is not positive, and an SDE without marginals, before the network is called.
    """

    own = ("y", "scale")

    def __init__(
        self,
        model: Denoiser,
        y: Tensor,
        A: Callable[[Tensor], Tensor],
        std: float,
        *,
        out: Spread = "moments",
        within: Spread = "moments",
        iterations: int | None = None,
        scale: Strength = 1.0,
    ) -> None:
        super().__init__(model)
        with_x0(model, "Observed")
        for name in (out, within):
            one_of(name, "spread", dict.fromkeys(get_args(Spread)))
        if out not in ("moments", "identity"):
            raise ValueError(f"S_out is 'moments' or 'identity', but out = {out!r}.")
        projected = out == within == "identity" and isinstance(A, Operator)
        if not (number("std", std) > 0 or (std == 0 and projected)):
            raise ValueError(
                f"std is the noise's, > 0, but it is {std!r}: without noise take "
                "ddnm(model, y, A), which projects, or a small std."
            )
        if not isinstance(y, Tensor) or not y.ndim or not len(y):
            raise ValueError(f"y is a tensor with the batch's axis, (b, *) or (1, *), not {y!r}.")
        most = min(y[0].numel(), MOST) if iterations is None else iterations
        self.iterations, self.std = whole("iterations", most), float(std)
        self.y, self.A, self.scale = y.to(model.device), A, check_strength(scale, model)
        self.out, self.within = out, within
        self.fine: tuple[int, ...] = ()

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
            p = self.seen(state, level)
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
        spreads: dict[str, Callable[[Tensor], Tensor]] = {"identity": lambda v: r2 * v}
        if C is not None:
            spreads["moments"] = C
        if self.within == "diagonal":
            assert C is not None
            diagonal = C(torch.ones_like(x0))
            spreads["diagonal"] = lambda v: diagonal * v
        S_in, S_out, var = spreads.get(self.within), spreads[self.out], self.std**2
        r = y - seen
        if S_in is None:
            w, residual = r / var, r.new_zeros(len(r))
        else:
            w, residual = conjugate_gradients(
                lambda u: var * u + A(S_in(AT(u))), r, self.iterations
            )
        return S_out(AT(w)), residual

    def check(self, x: Tensor) -> None:
        """Refuse measurements of another shape than a state's; each shape is looked at once."""
        if x.shape == self.fine:
            return
        seen = self.A(torch.zeros_like(x))
        if self.y.shape[1:] != seen.shape[1:] or len(self.y) not in (1, len(seen)):
            raise ValueError(
                f"A makes {tuple(seen.shape)} of states {tuple(x.shape)}, but y is "
                f"{tuple(self.y.shape)}."
            )
        self.fine = x.shape


Linear = Callable[[Tensor], Tensor]


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
"""Song et al. (2023), exact for N(m, I) data."""
mmps = Observed
"""Rozet et al. (2024): exact for Gaussians, with as many iterations as A has rank."""
tmpd = partial(Observed, within="diagonal")
"""Boys et al. (2023), exact for Gaussians of diagonal covariance."""


def ddnm(model: Denoiser, y: Tensor, A: Operator, std: float = 0.0) -> Observed:
    """x0 + A^+ (y - A x0): Wang et al. (2023), without a product with the Jacobian.

    ValueError without an A^+, which an Operator has.
    """
    if not isinstance(A, Operator):
        raise ValueError(f"ddnm projects by A^+: A is an Operator, which has pinv, not {A!r}.")
    return Observed(model, y, A, std, out="identity", within="identity")
