"""The contract of a model: what everything that samples, encodes, tunes or measures asks of it.

A score model is one; so is a wrapper that changes its output (guidance, a second network, the
model of a latent), the lifted model of a likelihood, and the symbol that a solver is traced with.
Whoever keeps this contract is sampled by every loop alike, and nobody drops it on the way.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sdegen.model.prediction import Target
from sdegen.sde.level import Instant
from sdegen.sde.process import SDE


@runtime_checkable
class Denoiser(Protocol):
    """A model of states (b, *), asked at levels of times () or (b,).

    sde:     the forward process.  target: what the output is, (a, b) at a level in
             F = a x0 + b eps.
    device, dtype: where and in which floating type states begin; None: anywhere, in any.
    nfe:     evaluations of the network so far, counted per sample of the batch: a wrapper that
             asks a batch twice as long for every state calls ``count(1)`` beside the one that its
             inner model counts.
    vjps:    products with the network's transposed Jacobian so far, counted alike. Models that
             ``take`` returns share both counters.
    data_range: (low, high) of the data it is a model of, None where nothing is known.

    A wrapper of which one call is more than one evaluation says so as ``cost``, by which budgets
    are divided (``cost_of``).
    """

    @property
    def sde(self) -> SDE:
        """The forward process."""

    @property
    def target(self) -> Target:
        """What ``output`` is."""

    @property
    def device(self) -> torch.device:
        """Where states begin."""

    @property
    def dtype(self) -> torch.dtype | None:
        """Their floating type."""

    @property
    def nfe(self) -> int:
        """Evaluations so far."""

    @property
    def vjps(self) -> int:
        """Products with the transposed Jacobian so far."""

    @property
    def data_range(self) -> tuple[float, float] | None:
        """Where data lies."""

    def __call__(self, x: Tensor, level: Any, /) -> Any:
        """Every view of one evaluation at a state (b, *) and a time or level:

        ``predicted(self.sde, self.target, x, self.output(x, level), level)``.
        """

    def output(self, x: Tensor, level: Instant, /) -> Tensor:
        """F (b, *) alone, of x's shape and dtype, counted: what a line of a program asks.

        The state may be a buffer that is overwritten later, so that it must not be kept; a graph
        of gradients made inside must end inside, unless gradients are on.
        """

    def take(self, index: Tensor, /) -> Denoiser:
        """The model of some samples of the batch, by their places (k,); this one is as it was."""

    def count(self, calls: int = 0, vjps: int = 0) -> None:
        """Count what was spent where nobody else counts it, as by a CUDA graph."""


class Around:
    """What a model that stands around another, ``model``, says as that one does."""

    model: Denoiser

    @property
    def sde(self) -> SDE:
        """The forward process."""
        return self.model.sde

    @property
    def flow_only(self) -> bool:
        """Whether it knows a flow and no score."""
        return flow_only(self.model)

    @property
    def device(self) -> torch.device:
        """Where states begin."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype | None:
        """Their floating type."""
        return self.model.dtype

    @property
    def nfe(self) -> int:
        """Evaluations so far."""
        return self.model.nfe

    @property
    def vjps(self) -> int:
        """Products with the transposed Jacobian so far."""
        return self.model.vjps

    @property
    def cost(self) -> int:
        """Network evaluations on a sample of one call, at most: what budgets are divided by."""
        return cost_of(self.model)

    def count(self, calls: int = 0, vjps: int = 0) -> None:
        """The model inside counts."""
        self.model.count(calls, vjps)


def flow_only(model: Denoiser) -> bool:
    """Whether a model says that it knows a flow and no score: see ``ScoreModel``."""
    return bool(getattr(model, "flow_only", False))


def refuse_flow_only(model: Denoiser, what: str) -> None:
    """ValueError for a model that knows a flow and no score, where ``what`` works with a score."""
    if flow_only(model):
        raise ValueError(
            f"{what} works with the score, and this model knows none (flow_only=True): its noise "
            "was coupled with its data, or its steps are those of a student, so that eps is no "
            "score. Follow the flow, eta = 0."
        )


def cost_of(model: Denoiser) -> int:
    """Network evaluations on a sample of one call of a model, at most."""
    return int(getattr(model, "cost", 1))
