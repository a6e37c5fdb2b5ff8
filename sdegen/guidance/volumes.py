"""Volumes: a model of slices as a model of volumes, and what joins the slices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import number, whole
from sdegen.guidance.inverse import check_measured
from sdegen.guidance.operators import Operator, conjugate_gradients
from sdegen.guidance.wrapped import Wrapped, refuse_where_eps_is_lost, take_own, with_x0
from sdegen.model.denoiser import Denoiser, cost_of
from sdegen.model.network import changed_values, lengths, take_values
from sdegen.sde.level import Instant


class Sliced(Wrapped):
    """A model of slices (b, *) as one of volumes: each slice along an axis by itself.

    The law is that of independent slices; ``Observed`` and ``Refined`` around it join them.

    model:  of slices. Everything it holds for each sample is a slice's: it sees b x slices of
            them in one call, those of a volume together, and as many values of each condition.
            Conditions that are given to the wrapper are a volume's, told to each of its slices;
            ``conditions`` are those that a volume's slices share. What differs between them, as
            a slice's place, is the inner model's alone.
    dim:    the axis of a volume (b, *) along which slices lie, 1 or more.
    slices: how many. The network is asked about each of them, so that this is the number of
            evaluations of one call on a sample, counted as nfe, by which budgets are divided. (A
            product with the Jacobian of the whole volume is one.)

    ValueError for an axis that is none, and volumes of another number of slices.
    """

    def __init__(self, model: Denoiser, dim: int, slices: int) -> None:
        super().__init__(model)
        self.dim, self.slices = whole("Sliced's dim", dim), whole("slices", slices)

    def __repr__(self) -> str:
        return f"Sliced({self.model!r}, {self.dim}, {self.slices})"

    @property
    def cost(self) -> int:
        """Of one call, on every slice."""
        return cost_of(self.model) * self.slices

    @property
    def shared(self) -> frozenset[str]:
        """Names of the conditions that are for all samples alike."""
        return frozenset(getattr(self.model, "shared", ()))

    @property
    def conditions(self) -> Mapping[str, Any]:
        """What volumes were given, each for its slices: ``given`` with it changes nothing."""
        told: dict[str, Any] = {}
        for name, value in getattr(self.model, "conditions", {}).items():
            found = set() if name in self.shared else lengths(value)
            if not found:
                told[name] = value
            elif len(found) == 1 and (n := min(found)) % self.slices == 0:
                first = take_values(value, torch.arange(0, n, self.slices))
                if alike(self.each(first), value):
                    told[name] = first
        return told

    def given(self, shared: Mapping[str, Any] | None = None, /, **conditions: Any) -> Sliced:
        """The same with other conditions of volumes."""
        each = {name: self.each(value) for name, value in conditions.items()}
        return self.changed(model=self.model.given(shared, **each))  # type: ignore[attr-defined, no-any-return]

    def each(self, value: Any) -> Any:
        """A volume's value for each of its slices; one that has no axis is for all."""
        found = lengths(value)
        if len(found) != 1:  # the network's model refuses what has two
            return value
        return take_values(value, torch.arange(min(found)).repeat_interleave(self.slices))

    def take(self, index: Tensor) -> Sliced:
        """Some of the volumes: all of their slices."""
        places = torch.arange(self.slices, device=index.device) + self.slices * index[:, None]
        return self.changed(model=self.model.take(places.flatten()))  # type: ignore[no-any-return]

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F of all slices in one call."""
        if x.ndim <= self.dim or x.shape[self.dim] != self.slices:
            raise ValueError(
                f"Sliced takes volumes of {self.slices} slices along axis {self.dim}, but they "
                f"are {tuple(x.shape)}."
            )
        if level.t.ndim:  # a time for each volume is one for each of its slices
            parts = {each.name: self.each(getattr(level, each.name)) for each in fields(level)}
            level = type(level)(**parts)
        lying = x.movedim(self.dim, 1)
        before, more = (self.nfe, self.vjps), self.slices - 1
        F = self.model.output(lying.flatten(0, 1), level)
        self.count(more * (self.nfe - before[0]), more * (self.vjps - before[1]))
        return F.unflatten(0, lying.shape[:2]).movedim(1, self.dim)


def alike(one: Any, two: Any) -> bool:
    """Whether two conditions of the same kind have the same values."""
    if isinstance(one, Mapping):
        return all(alike(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return all(map(alike, one, two))
    return bool((one == two).all()) if hasattr(one, "ndim") else bool(one == two)


class Proximal(ABC):
    """A map of x0 (b, *) that asks no network, each sample by itself, as a proximal operator."""

    @abstractmethod
    def __call__(self, x0: Tensor) -> Tensor:
        """The refined x0."""

    @abstractmethod
    def take(self, index: Tensor) -> Proximal:
        """The map of some samples of the batch."""

    @abstractmethod
    def with_values(self, change: Callable[[Tensor], Tensor]) -> Proximal:
        """The map with other tensors as its values of each sample."""


class Refined(Wrapped):
    """E[x0 | x_t] refined by a map at every call, and eps so that x stays.

    refine: a ``Proximal``, as ``TV``, or a function of x0 (b, *) that has nothing of its own for
            each sample.

    Solvers of x0 and of eps see one pair. Without noise in it, what is refined is drawn from no
    posterior: it is a reconstruction (docs/inverse.md). ValueError for an SDE without marginals.
    """

    def __init__(self, model: Denoiser, refine: Callable[[Tensor], Tensor]) -> None:
        super().__init__(model)
        with_x0(model, "Refined")
        if not callable(refine):
            raise ValueError(f"Refined takes a function of x0, as TV(...), but it is {refine!r}.")
        self.refine = refine

    def take(self, index: Tensor) -> Refined:
        """The refinement of some samples of the batch."""
        new: Refined = super().take(index)
        each = self.refine
        return new.changed(refine=each.take(index) if isinstance(each, Proximal) else each)  # type: ignore[no-any-return]

    def with_values(self, change: Callable[[Tensor], Tensor]) -> Refined:
        """The refinement with other tensors."""
        new: Refined = super().with_values(change)
        each = self.refine
        return new.changed(refine=each.with_values(change) if isinstance(each, Proximal) else each)  # type: ignore[no-any-return]

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F of the refined model."""
        refuse_where_eps_is_lost(self.model, level, "A refined model")
        p = self.seen(x, level)
        return p.replaced(self.refine(p.x0))


@dataclass(frozen=True, eq=False)
class TV(Proximal):
    """argmin_x |x - x0|^2 / 2 + gamma |y - A x|^2 / 2 + weight |D x|_1, D x the steps along dim.

    Total variation across slices joins what a model of slices says of each, and the data are
    weighted in: Chung et al. (2024b), whose proximal step has gamma. By ADMM, with d for D x, u
    the scaled dual, both zero at each call's beginning, so that it is a function of x0 alone:

        x = (1 + gamma A^T A + rho D^T D)^-1 (x0 + gamma A^T y + rho D^T (d - u)),
        d = soft(D x + u, weight / rho),   u += D x - d.

    A, y:       measurements of volumes, y (b, *) or (1, *); None for both: total variation alone.
    weight:     of |D x|_1, >= 0.  dim: the axis of a state (b, *), 1 or more.
    gamma:      of the measurements, >= 0: the variance of x0's error over that of y's noise.
    rho:        of ADMM, > 0: how fast it gets there, and not where.
    iterations: of ADMM; steps: of conjugate gradients in each. Fixed: nothing is read back.

    ValueError for an A without its T, an A without a y, numbers out of range, and shapes of y and
    axes that do not fit.
    """

    A: Operator | None
    y: Tensor | None
    weight: float
    dim: int
    gamma: float = 1.0
    rho: float = 1.0
    iterations: int = 20
    steps: int = 10

    def __post_init__(self) -> None:
        if (self.A is None) != (self.y is None):
            raise ValueError("TV takes a measurement and what was measured: A and y, or neither.")
        if self.A is not None and not isinstance(self.A, Operator):
            raise ValueError(f"TV needs A's transposed: A is an Operator, not {self.A!r}.")
        for name in ("weight", "gamma"):
            number(f"TV's {name}", getattr(self, name), 0)
        for name in ("dim", "iterations", "steps"):
            whole(f"TV's {name}", getattr(self, name))
        if not number("rho", self.rho) > 0:
            raise ValueError(f"ADMM has rho > 0, but rho = {self.rho!r}.")

    def take(self, index: Tensor) -> TV:
        """Of some samples."""
        A = None if self.A is None else self.A.take(index)
        return replace(self, A=A, y=take_own(self.y, index))

    def with_values(self, change: Callable[[Tensor], Tensor]) -> TV:
        """With another y."""
        return replace(self, y=changed_values(self.y, change))

    def __call__(self, x0: Tensor) -> Tensor:
        """The minimiser, as far as the iterations go."""
        if x0.ndim <= self.dim:
            raise ValueError(f"States {tuple(x0.shape)} have no axis {self.dim}.")
        A, x, rhs = self.A, x0, x0
        if A is not None:
            assert self.y is not None
            check_measured(A, self.y, x0)
            rhs = x0 + self.gamma * A.T(self.y.to(x0).expand_as(A(x0)))

        def M(v: Tensor) -> Tensor:
            seen = v if A is None else v + self.gamma * A.T(A(v))
            return seen + self.rho * self.back(self.along(v))

        d = u = torch.zeros_like(self.along(x0))
        for _ in range(self.iterations):
            b = rhs + self.rho * self.back(d - u)
            x = x + conjugate_gradients(M, b - M(x), self.steps)[0]
            Dx = self.along(x)
            d = torch.nn.functional.softshrink(Dx + u, self.weight / self.rho)
            u = u + Dx - d
        return x

    def along(self, x: Tensor) -> Tensor:
        """D x."""
        return x.diff(dim=self.dim)

    def back(self, d: Tensor) -> Tensor:
        """D^T d."""
        zero = d.new_zeros(()).expand(*d.shape[: self.dim], 1, *d.shape[self.dim + 1 :])
        return -torch.cat([zero, d, zero], self.dim).diff(dim=self.dim)

    def objective(self, x: Tensor, x0: Tensor) -> Tensor:
        """What is minimised, of each sample, (b,)."""
        misfit = (x - x0).flatten(1).square().sum(1) / 2
        if self.A is not None and self.y is not None:
            off = self.A(x) - self.y.to(x)
            misfit = misfit + self.gamma / 2 * off.flatten(1).square().sum(1)
        return misfit + self.weight * self.along(x).flatten(1).abs().sum(1)
