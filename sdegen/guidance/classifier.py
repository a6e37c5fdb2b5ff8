"""Guidance by a log-likelihood: a classifier's, an encoder's similarity, or any other's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import uncallable
from sdegen.guidance.wrapped import (
    Strength,
    Wrapped,
    at_large,
    check_strength,
    extremes,
    jumps,
    refuse_end,
    strength,
    take_own,
    with_x0,
)
from sdegen.model.denoiser import Denoiser, refuse_flow_only
from sdegen.model.network import changed_values
from sdegen.model.prediction import LinearPrediction, ScorePrediction, same
from sdegen.sde.level import Instant, Level, expand

LogP = Callable[..., Tensor]
"""(x (b, *), level, **given) -> log p of each sample (b,), which no other sample is seen by."""


class Guided(Wrapped):
    """score + scale grad log p(y | x_t), by a gradient.  Dhariwal & Nichol (2021), alg. 2.

    log_p:   (x, level, **given) -> (b,): a noise-aware classifier's, a similarity (Liu et al.
             2021), any differentiable function of a noisy state, normalised or not.
    scale:   a number, one for each sample (b,), or a function of the level. 0 asks log_p nothing.
    through: log_p is a function of E[x0 | x_t] and is differentiated through the network: one
             forward graph, one product with its transposed Jacobian.
    given:   log_p's own arguments with a value for each sample, cut with the batch.

    A true p gives the score of the posterior, scale != 1 that of no density for all t: then every
    eta ends in another law (docs/guidance.md).

    Under gradients (``graph=True``, likelihoods) the gradient of log_p is kept differentiable.
    ValueError for a log_p that does not take what it is given, or is not one number for each
    sample.
    """

    own = ("scale",)

    def __init__(
        self,
        model: Denoiser,
        log_p: LogP,
        scale: Strength = 1.0,
        *,
        through: bool = False,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(model)
        refuse_flow_only(model, "Guided")
        if through:
            with_x0(model, "through=True")
        judged = getattr(log_p, "sde", None)
        if judged is not None and judged != model.sde:
            raise ValueError(
                f"The judge knows the noisy states of {judged}, but the model's are those of "
                f"{model.sde}: train one on them."
            )
        self.about = check_asked(log_p, given)
        self.log_p, self.scale, self.through = log_p, check_strength(scale, model), through

    def take(self, index: Tensor) -> Guided:
        """The wrapper of some samples of the batch."""
        other: Guided = super().take(index)
        about = {name: take_own(value, index) for name, value in self.about.items()}
        return other.changed(about=about)  # type: ignore[no-any-return]

    def with_values(self, change: Callable[[Tensor], Tensor]) -> Guided:
        """The wrapper with other tensors."""
        other: Guided = super().with_values(change)
        return other.changed(about=changed_values(self.about, change))  # type: ignore[no-any-return]

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F of the guided model."""
        s = strength(self.scale, x, level)
        if isinstance(s, int | float) and s == 0:
            return self.model.output(x, level)
        if isinstance(level, Level) and not same(self.target(level)[0], 0.0):
            refuse_end(level, "A guided score", "alpha")
        self.check_given(x)
        if self.through:
            p, score = self.through_the_network(x, level)
        else:
            p, score = self.model(x, level), gradient(self.log_p, x, level, self.about)
        push = expand(s, x) * score
        return p.F + push if isinstance(p, ScorePrediction) else p.moved(push)

    @property
    def base(self) -> Denoiser:
        """The model that is guided."""
        return self.model

    def kick(self, x: Tensor, level: Level) -> Tensor:
        """eps - eps_base (b, *), -sigma scale grad log p; a scale of 0 asks nothing."""
        s = strength(self.scale, x, level)
        if isinstance(s, int | float) and s == 0:
            return torch.zeros_like(x)
        self.check_given(x)
        if self.through:
            _, score = self.through_the_network(x, level)
        else:
            score = gradient(self.log_p, x, level, self.about)
        return expand(-level.sigma, x) * (expand(s, x) * score)

    @property
    def strength(self) -> float:
        """The largest |scale|, or that of a model inside. Where log_p is log p(y | x_t), of a
        positive scale it is CFG's."""
        return max(super().strength, *map(abs, extremes(self.scale, self.sde)))

    @property
    def jumps(self) -> bool:
        """As the scale says, or a model inside."""
        return jumps(self.scale) or super().jumps

    def check_given(self, x: Tensor) -> None:
        """Refuse arguments of log_p that are not of the batch's length."""
        for name, value in self.about.items():
            if isinstance(value, Tensor) and value.ndim and len(value) not in (1, len(x)):
                raise ValueError(
                    f"log_p was given {name} of {len(value)} values, but the batch has {len(x)} "
                    "samples: give one for each, or leave it to log_p itself."
                )

    def through_the_network(self, x: Tensor, level: Instant) -> tuple[LinearPrediction, Tensor]:
        """The network's prediction, and the gradient of log_p(x0(x)) by x: one graph for both."""
        outer = torch.is_grad_enabled()
        level = at_large(level)
        with torch.inference_mode(False), torch.enable_grad():
            y = leaf(x)
            p = self.seen_at_large(y, level)
            value = per_sample(self.log_p(p.x0, level, **at_large_values(self.about)), x)
            score = slope(value, y, outer)
        self.count(vjps=1)
        return (p, score) if outer else (replace(p, x=x, F=p.F.detach()), score)


def check_asked(log_p: LogP, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """log_p's arguments by name; ValueError for what is no function of (x, level) and these."""
    if not callable(log_p):
        raise ValueError(f"log_p is a function (x, level, **given) -> (b,), but it is {log_p!r}.")
    about = {} if given is None else given
    if not isinstance(about, Mapping):
        raise ValueError(
            f"given is log_p's arguments by name, as {{'y': y}}, but it is {given!r}."
        )
    if refused := uncallable(getattr(log_p, "forward", log_p), "x", "level", **about):
        said = ", ".join(about) or "nothing"
        raise ValueError(
            f"log_p is asked log_p(x, level, **given), and was given {said}, but: {refused}."
        )
    return dict(about)


def leaf(x: Tensor) -> Tensor:
    """A state to differentiate by: itself within a graph, else a copy that no graph reaches (a
    tensor of inference mode cannot be detached into one)."""
    return x if x.requires_grad else x.clone().requires_grad_()


def per_sample(value: Tensor, x: Tensor) -> Tensor:
    """log_p's values, one for each sample; ValueError for others, which samples would share."""
    if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
        found = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
        raise ValueError(
            f"log_p returns one number for each of {len(x)} samples, ({len(x)},), but it returned "
            f"{found}: sum over a sample's own axes alone."
        )
    return value


def derivative(value: Tensor, x: Tensor, create_graph: bool = False) -> Tensor | None:
    """d value.sum() / d x; None where x has no part in it, though its own parameters may."""
    if not value.requires_grad:
        return None
    (found,) = torch.autograd.grad(value.sum(), x, allow_unused=True, create_graph=create_graph)
    return found  # type: ignore[no-any-return]


def seen_through(A: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Any, bool]:
    """What A makes of a random state like x, and whether a gradient that is not 0 everywhere
    comes back: of random weights, as those of a sum are 0 for differences around a circle."""
    draws = torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.enable_grad():
        state = (torch.randn(x.shape, generator=draws) / 2).to(x).requires_grad_()
        seen = A(state)
        if not isinstance(seen, Tensor) or not seen.is_floating_point():
            return seen, False
        back = derivative(torch.randn(seen.shape, generator=draws).to(seen) * seen, state)
    return seen, back is not None and bool((back != 0).any())


def slope(value: Tensor, x: Tensor, create_graph: bool) -> Tensor:
    """The gradient of log_p's values (b,) by the state; ValueError where there is none."""
    found = derivative(value, x, create_graph)
    if found is None:
        raise ValueError(
            "log_p has no gradient by the state: is it constant, of x.detach(), or under no_grad?"
        )
    return found


def gradient(log_p: LogP, x: Tensor, level: Instant, given: Mapping[str, Any]) -> Tensor:
    """grad_x log p (b, *), whatever mode is on outside; differentiable where gradients are."""
    outer, level = torch.is_grad_enabled(), at_large(level)
    with torch.inference_mode(False), torch.enable_grad():
        y = leaf(x)
        value = per_sample(log_p(y, level, **at_large_values(given)), x)
        return slope(value, y, outer)


def at_large_values(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments that gradients may be made with."""
    return changed_values(given, lambda x: x.clone() if x.is_inference() else x)  # type: ignore[no-any-return]
