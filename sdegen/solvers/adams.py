"""Adaptive Adams methods: steps that follow the error, one network call each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.checks import whole
from sdegen.sde.level import Instant, Level
from sdegen.solvers.adaptive import Adaptive, Attempt, Known, check_control
from sdegen.solvers.equation import Reverse
from sdegen.solvers.exponential import Form, FormName, advance, form_of
from sdegen.solvers.quadrature import points
from sdegen.solvers.solver import Preset
from sdegen.solvers.traits import Traits, own_steps


@dataclass(frozen=True)
class AdaptiveMultistep(Adaptive):
    """Exponential Adams-Bashforth-Moulton with steps of any length, one network call a step.

    The predictor goes through the last ``order`` values of Q; the network is asked where it ends;
    the corrector, with that value and ``order`` more, is kept. Its error is measured by what the
    oldest value changes, which is the error of the corrector without it. Steps begin with one
    value, short and of order 1. Weights are exact integrals for every spacing, so a change of
    step costs nothing. Hairer, Norsett & Wanner, III.5 (variable steps, predict-evaluate-correct);
    ``Multistep`` for what is integrated.

    order:      values of the predictor.
    prediction, sigma_data: Q, "x0", "eps" or "F", as in ``Multistep``.
    See ``Adaptive`` for the rest.
    """

    order: int = 4
    prediction: FormName = "F"
    sigma_data: float | None = None
    rtol: float = 1e-5
    atol: float = 1e-5
    max_nfe: int = 10_000
    per_sample: bool = True
    clock = "lam"
    stages, longest = 2, 2.0
    presets: ClassVar = {
        "adaptive_multistep": Preset({}, "Adams-Bashforth-Moulton 5(4) in F, steps in lam"),
        "adaptive_multistep_x0": Preset({"prediction": "x0"}, "the same in x0"),
    }

    def __post_init__(self) -> None:
        check_control(self)
        whole("AdaptiveMultistep's order", self.order, 1)
        form_of(self.prediction, self.sigma_data)

    @property
    def traits(self) -> Traits:
        """The corrector's order."""
        return own_steps(self.order + 1, needs_marginals=True)

    def size(self, largest: Tensor) -> Tensor:
        """atol + rtol |x|."""
        return self.atol + self.rtol * largest

    def attempt(
        self, p: Reverse, x: Tensor, t: Instant, s: Instant, known: Known | None
    ) -> Attempt:
        """Predict, evaluate, correct.  Known are the last values of Q, (k, order, *), the newest
        first, and the lam of each, (k, order) or (k, *coordinates, order), NaN where there is none
        yet."""
        assert isinstance(t, Level) and isinstance(s, Level)
        form = form_of(self.prediction, self.sigma_data)
        if known is None:
            known = self.begin(form.view(p.model(x, t)), t)
        q, lams = known
        coordinates = lams.ndim > 2
        # One set of weights where it does for all.
        shared = slice(None) if self.per_sample else slice(1) if coordinates else 0
        guess = advance(p, form, x, t, s, weights(p, form, lams[shared], t, s), q.unbind(1))
        value = form.view(p.model(guess, s))
        q_s = torch.cat([value.unsqueeze(1), q], 1)
        lams_s = torch.cat([s.lam.unsqueeze(-1).expand(*lams.shape[:-1], 1), lams], -1)
        knots = lams_s[shared]
        count = (~knots.isnan()).sum(-1)
        oldest = torch.arange(knots.shape[-1]) == (count - 1).unsqueeze(-1)
        kept = weights(p, form, knots, t, s)
        without = weights(p, form, knots.masked_fill(oldest, torch.nan), t, s)
        x_s = advance(p, form, x, t, s, kept, q_s.unbind(1))
        change = torch.stack(kept, -1) - torch.stack(without, -1)
        if coordinates:
            change, count = change.movedim(-1, 1), count.flatten(1)[:, 0]
        else:
            change = change.reshape(-1, change.shape[-1], *[1] * (x.ndim - 1))
        error = (change.to(x) * q_s).sum(1)
        known_after = q_s[:, : self.order], lams_s[..., : self.order]
        return Attempt(x_s, error, known, known_after, count.to(torch.float64))

    def begin(self, value: Tensor, t: Level) -> Known:
        """A first value and no others."""
        b = len(value)
        q = torch.cat(
            [value.unsqueeze(1), value.new_zeros(b, self.order - 1, *value.shape[1:])], 1
        )
        lams = torch.full((b, *t.lam.shape[1:], self.order), torch.nan, dtype=torch.float64)
        lams[..., 0] = t.lam
        return q, lams


def weights(p: Reverse, form: Form, lams: Tensor, t: Level, s: Level) -> list[Tensor]:
    """``lagrange`` through the values at lams (*, n), of which those at NaN are none."""
    lam, w = points(t.lam, s.lam)
    mass = w * form.density(p, lam, s)
    none = lams.isnan()
    knots = lams.masked_fill(none, 0.0)
    gaps = knots.unsqueeze(-1) - knots.unsqueeze(-2)
    apart = (gaps != 0) & ~none.unsqueeze(-2)
    factor = (lam.unsqueeze(-1) - knots.unsqueeze(-2)).unsqueeze(-3) / gaps.unsqueeze(-2)
    basis = torch.where(apart.unsqueeze(-2), factor, 1.0).prod(-1)
    found = (mass.unsqueeze(-2) * basis).sum(-1).masked_fill(none, 0.0)
    return list(found.unbind(-1))
