"""Couplings: which noise goes with which data.

A loss that pairs them otherwise than independently learns another flow between the same two laws,
with straighter paths; its eps is no score any more, so that its model says ``flow_only=True``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdegen.model.denoiser import Denoiser, flow_only
from sdegen.model.network import lengths
from sdegen.sde.process import LinearSDE

Coupling = Callable[
    [Tensor, Tensor | None, torch.Generator | None],
    tuple[Tensor, Tensor],
]
"""(data (b, *), class labels y (b,) or None, generator) -> x0 (b, *), z (b, *), both in their own
law, and z of one sample's own x0 or of its batch."""


def independent_noise(
    x0: Tensor, y: Tensor | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """z ~ N(0, I), whatever x0 is: the coupling that makes eps a score."""
    return x0, torch.randn(x0.shape, device=x0.device, generator=generator, dtype=x0.dtype)


@dataclass(frozen=True)
class MinibatchOT:
    """The noise of a batch, permuted so that sum |z - x0|^2 is least.  Pooladian et al. (2023);
    Tong et al. (2024).

    It straightens paths in few dimensions: of Gaussian data and 64 samples the correlation of a
    coordinate with its noise is 0.96 in one dimension, 0.26 in 64.

    by_class: within each class alone, where there are labels: a plan of the whole batch would
              tell noise by its class, p(z | y) != p(z), and spoil conditional models. So would
              one of samples that are told anything else of their own, as captions: losses refuse
              these, and labels where it is false.

    The plan is SciPy's, exact, of the third power of the batch, on the host.
    """

    by_class: bool = True

    @property
    def within(self) -> frozenset[str]:
        """Conditions within whose values it pairs."""
        return frozenset({"y"} if self.by_class else ())

    def __call__(
        self, x0: Tensor, y: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """x0 as it is, and its noise (b, *)."""
        x0, z = independent_noise(x0, None, generator)
        groups = [torch.arange(len(x0))]
        if isinstance(y, Tensor) and y.ndim and self.by_class:  # one label for all is one group
            if y.shape != x0.shape[:1]:
                raise ValueError(
                    f"MinibatchOT pairs within classes, labels ({len(x0)},), but y is "
                    f"{tuple(y.shape)}: give labels, or by_class=False."
                )
            labels = y.cpu()
            groups = [(labels == label).nonzero().flatten() for label in labels.unique()]
        order = torch.arange(len(x0))
        for places in groups:
            order[places] = places[nearest(x0[places.to(x0.device)], z[places.to(x0.device)])]
        return x0, z[order.to(z.device)]


def nearest(x0: Tensor, z: Tensor) -> Tensor:
    """Which of z (b, *) goes with each of x0 (b, *), one to one, so that sum |z - x0|^2 is least:
    the numbers (b,), on the host."""
    from scipy.optimize import linear_sum_assignment

    a, b = (each.detach().reshape(len(each), -1).float() for each in (x0, z))
    alike = (a - a.mean(0)) @ (b - b.mean(0)).T  # of |a - b|^2 what depends on who goes with whom
    return torch.as_tensor(linear_sum_assignment(alike.cpu().numpy(), maximize=True)[1])


def stored(
    pairs: Tensor, y: Tensor | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Pairs (b, 2, *) of data and the noise that they were made of, as ``distill.Pairs`` are.

    ValueError for data that are no pairs.
    """
    if pairs.ndim < 2 or pairs.shape[1] != 2:
        raise ValueError(
            f"Pairs are (b, 2, *), data and their noise, but these are {tuple(pairs.shape)}: "
            "make them with distill.Pairs(model, n)."
        )
    x0, z = pairs.unbind(1)
    return x0, z


def own_conditions(model: Any) -> set[str]:
    """Conditions of which a model was given a value for each sample."""
    given: Mapping[str, Any] = getattr(model, "conditions", {})
    shared: frozenset[str] = getattr(model, "shared", frozenset())
    return {name for name, value in given.items() if name not in shared and lengths(value)}


def refuse_reordered(x0: Tensor, data: Tensor, model: Denoiser) -> None:
    """ValueError, where looking is free, for data in another order than what the model was told of
    each; what a coupling has changed of a sample itself is its own affair."""
    if x0 is data or x0.shape != data.shape or x0.device.type != "cpu" or torch.equal(x0, data):
        return
    rows, before = (each.detach().double().flatten(1) for each in (x0, data))
    moved = (rows != before).any(1)
    again = torch.isin(rows[moved].sum(1), before.sum(1))
    if bool(again.any()) and (told := own_conditions(model)):
        raise ValueError(
            "The coupling returns the data in another order than it was given them, so that "
            f"{', '.join(sorted(told))} would be told of other samples: reorder the "
            "noise, and leave x0 as it is."
        )


def refuse_coupling(couple: Coupling, model: Denoiser) -> None:
    """ValueError where noise is coupled with data, and the model does not know, or is told more of
    each sample than the coupling respects."""
    if couple is independent_noise:
        return
    if not isinstance(model.sde, LinearSDE):
        raise ValueError(
            f"A coupling is of data and the noise of a LinearSDE, which "
            f"{type(model.sde).__name__} is not."
        )
    if not flow_only(model):
        name = getattr(couple, "__name__", type(couple).__name__)
        raise ValueError(
            f"{name} couples data and noise, so that eps is no score: make the model "
            "ScoreModel(..., flow_only=True), and what needs a score will refuse it."
        )
    within = getattr(couple, "within", None)
    if within is not None and (apart := own_conditions(model) - within):
        said = ", ".join(sorted(apart))
        remedy = "by_class=True, or independent_noise" if apart == {"y"} else "independent_noise"
        raise ValueError(
            f"{type(couple).__name__} pairs noise with data whatever their {said}, of which the "
            f"model is told: it would learn of noise that goes with {said}, and be sampled from "
            f"noise that does not. Use {remedy}."
        )
