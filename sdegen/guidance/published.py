"""Inverse problems by steps of a published length: DPS and MCG as their authors run them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from sdegen.checks import number
from sdegen.guidance.classifier import leaf
from sdegen.guidance.inverse import Observed, check_measured, check_seen, ddnm, linearised
from sdegen.guidance.operators import Operator
from sdegen.guidance.wrapped import Wrapped, at_large, refuse_where_eps_is_lost, with_x0
from sdegen.model.denoiser import Denoiser, refuse_flow_only
from sdegen.sde.level import Instant, expand
from sdegen.sde.process import LinearSDE


class PublishedDPS(Wrapped):
    """x_s - zeta grad |y - A x0| after a DDPM step from t to s.  Chung et al. (2023), alg. 1.

    r = y - A x0 and its norm |r| are a sample's own, and zeta is their code's: the step is of
    length zeta |J^T A^T r| / |r| however large r is, so that nothing explodes, and it knows no
    noise. A DDPM step moves x_s by alpha_s (1 - e^(-2h)) for every x0, h its length in
    log(alpha / sigma), so that it is the same as

        x0' = x0 + zeta / (alpha_s (1 - e^(-2h))) J^T A^T r / |r|:

    Bayes' form with std^2 = 2 h sigma^2 |r| / zeta for short steps, a strength that grows with
    the number of steps and has no limit. At the last time it is that of a step to sigma = 0, which
    ``denoise=True`` takes: x0 moves in full, by zeta J^T A^T r / |r|.

    So it is the published algorithm by ``DDIM(1.0)`` on its own walk, ``walk=times``, alone.
    Another solver makes steps of other lengths of it; at other times it has no value.

    times: of the walk, (n + 1,), falling.  y: (b, *) or (1, *).  A: an ``Operator`` or any
    differentiable function of x0. One evaluation and one product with the Jacobian.

    ValueError for a zeta that is negative, times that do not fall, a y of another shape than A x0,
    an SDE without marginals or with levels that differ between coordinates, and a level that is
    none of the walk's.
    """

    own = ("y",)

    def __init__(
        self,
        model: Denoiser,
        y: Tensor,
        A: Callable[[Tensor], Tensor],
        times: Tensor,
        zeta: float = 1.0,
    ) -> None:
        super().__init__(model)
        with_x0(model, "PublishedDPS")
        refuse_flow_only(model, "PublishedDPS")
        check_seen(y)
        self.y, self.A, self.zeta = y.to(model.device), A, number("zeta", zeta, 0)
        self.times, self.gains = step_gains(model.sde, times)  # type: ignore[arg-type]
        self.fine: tuple[int, ...] = ()

    def take(self, index: Tensor) -> PublishedDPS:
        """What some samples of the batch were seen as."""
        new: PublishedDPS = super().take(index)
        A = self.A.take(index) if isinstance(self.A, Operator) else self.A
        return new.changed(A=A, fine=())  # type: ignore[no-any-return]

    @property
    def jumps(self) -> bool:
        """A step's strength is its own."""
        return True

    def gain(self, level: Instant) -> Tensor:
        """What x0 is pushed by at a level of the walk, () or (b,); ValueError at any other."""
        t = level.t.detach().to("cpu", torch.float64)
        off = (t[..., None] - self.times).abs()
        nearest = off.argmin(-1)
        stray = off.amin(-1) > 1e-6 * t  # they may have been said in float32
        if bool(stray.any()):
            raise ValueError(
                f"PublishedDPS is of the steps of its walk's {len(self.times)} times, of which "
                f"t = {t[stray].flatten()[0]:g} is none: sample with solver=DDIM(1.0), walk=times."
            )
        return self.gains[nearest]

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F of the model whose DDPM step descends."""
        if x.shape != self.fine:
            check_measured(self.A, self.y, x)
            self.fine = x.shape
        gain = expand(self.gain(level), x)
        refuse_where_eps_is_lost(self.model, level, "What is observed")
        level = at_large(level)
        outer = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            state, y = leaf(x), self.y.to(x)
            p = self.seen_at_large(state, level)
            x0 = p.x0
            seen, _, AT = linearised(self.A, x0 if outer else x0.detach())
            r = (y.clone() if y.is_inference() else y) - seen
            size = r.flatten(1).norm(dim=1).reshape(-1, *[1] * (r.ndim - 1))
            # No direction at r = 0, and no push.
            unit = torch.where(size > 0, r / torch.where(size > 0, size, 1), 0)
            (push,) = torch.autograd.grad(x0, state, AT(unit), create_graph=outer)
        self.count(vjps=1)
        if not outer:
            p, push = replace(p, x=x, F=p.F.detach()), push.detach()
        return p.pushed(self.zeta * gain * push)


def step_gains(sde: LinearSDE, times: Tensor) -> tuple[Tensor, Tensor]:
    """Times (n + 1,) and 1 / (alpha_s (1 - e^(-2h))) of the step from each: what x0 is moved by
    where DDPM's x_s is moved by one. Of the step to sigma = 0, from the last, it is 1."""
    if not isinstance(times, Tensor) or times.ndim != 1 or len(times) < 2:
        raise ValueError(f"times are those of the walk, (n + 1,), but they are {times!r}.")
    times = times.detach().to("cpu", torch.float64)
    for t, s in pairwise(times.tolist()):
        if not s < t:
            raise ValueError(f"A walk's times fall, but {t:g} is followed by {s:g}.")
    levels = sde(times)
    if levels.alpha.ndim > 1:
        raise ValueError(
            f"PublishedDPS has one length for a step, but levels of {type(sde).__name__} differ "
            "between coordinates."
        )
    step = levels.alpha[1:] * -torch.expm1(-2 * levels.lam.diff())
    return times, torch.cat([1 / step, step.new_ones(1)])


def mcg(model: Denoiser, y: Tensor, A: Operator, times: Tensor, zeta: float = 1.0) -> Observed:
    """PublishedDPS, and the state set to what is seen of it.  Chung et al. (2022), alg. 1.

    x_s + A^+ (y_s - A x_s) with y_s = alpha y + sigma z is what x0 + A^+ (y - A x0) makes of the
    state by itself: ``ddnm`` around ``PublishedDPS``. For measurements without noise.
    """
    return ddnm(PublishedDPS(model, y, A, times, zeta), y, A)
