"""The divergence of a vector field, exactly or by probes, from one evaluation of the field."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from sdegen.checks import one_of
from sdegen.noise.source import Noise
from sdegen.sde.level import Instant

Kind = Literal["rademacher", "gaussian", "hutch++", "exact"]
KINDS = {kind: kind for kind in ("rademacher", "gaussian", "hutch++", "exact")}


@dataclass(frozen=True)
class Divergence:
    """How the trace of a Jacobian J (n, n) is found.

    kind:   "rademacher", "gaussian": v . J v, Hutchinson (1989), of random signs or normal draws;
            "hutch++": exact on the range of J's sketch, Hutchinson beside it, Meyer et al. (2021),
            alg. 1, in three times the work (see ``projection``); "exact": n rows of J.
    probes: k estimates, independent of one another given the sketch; each costs one backward pass.
    chunk:  rows of J that "exact" finds at once.
    """

    kind: Kind = "rademacher"
    probes: int = 2
    chunk: int = 64

    def __post_init__(self) -> None:
        one_of(self.kind, "divergence", KINDS)
        for name, value in (("probes", self.probes), ("chunk", self.chunk)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number >= 1, but it is {value!r}.")

    @property
    def estimates(self) -> int:
        """k: independent ones, or the one that is exact."""
        return 1 if self.kind == "exact" else self.probes

    def products(self, n: int) -> int:
        """Products with J^T that an estimate in n dimensions takes."""
        return {"exact": n, "hutch++": 3 * self.probes}.get(self.kind, self.probes)

    def draw(self, x: Tensor, noise: Noise, at: Instant) -> Tensor:
        """Probes (b, m, *) for states x (b, *), each sample's from its own seed: kept for a solve.

        ValueError where a sketch would be as wide as the state.
        """
        n = x[0].numel()
        if self.kind == "exact":
            return x.new_empty(len(x), 0, *x.shape[1:])
        if self.kind == "hutch++" and self.probes >= n:
            raise ValueError(
                f"hutch++ with {self.probes} probes sketches all {n} dimensions: use "
                'divergence="exact".'
            )
        m = 2 * self.probes if self.kind == "hutch++" else self.probes
        z = torch.stack([noise(x, at, at) for _ in range(m)], 1)
        return z if self.kind == "gaussian" else torch.where(z < 0, -1.0, 1.0).to(z)

    def __call__(self, out: Tensor, x: Tensor, probes: Tensor, graph: bool = False) -> Tensor:
        """k estimates of the trace of d out / d x, (b, k), at states x (b, *).

        out: the field at x, made with gradients; a sample's depends on its own x alone.
        graph: the estimates shall have gradients themselves.
        """

        def pulled(v: Tensor) -> Tensor:
            """J^T v for v (b, *)."""
            (g,) = torch.autograd.grad(out, x, v, retain_graph=True, create_graph=graph)
            return g

        if self.kind == "exact":
            return self.trace(out, x, graph)[:, None]
        if self.kind != "hutch++":
            found = [(v * pulled(v)).reshape(len(v), -1).sum(1) for v in probes.unbind(1)]
            return torch.stack(found, 1)
        return self.sketched(pulled, probes)

    def sketched(self, pulled: Callable[[Tensor], Tensor], probes: Tensor) -> Tensor:
        """Hutch++ on J - m, for m the mean of J's diagonal as the sketch's own probes have it.

        The denoiser's Jacobian is of low rank beside a multiple of one, not beside nothing.
        """
        b, shape, k = len(probes), probes.shape[2:], self.probes
        first, rest = (v.reshape(b, k, -1) for v in (probes[:, :k], probes[:, k:]))

        def J(v: Tensor) -> Tensor:
            """J^T v for each of v (b, k, n)."""
            rows = [pulled(row.reshape(b, *shape)).reshape(b, -1) for row in v.unbind(1)]
            return torch.stack(rows, 1)

        Y = J(first)
        m = (first * Y).mean((1, 2), keepdim=True)
        Y = Y - m * first
        A, B = projection(Y)
        known = rest.shape[2] * m[:, :, 0] + ((B @ Y) * (J(Y) - m * Y)).sum((1, 2))[:, None]
        rest = rest - rest @ Y.mT @ A @ Y
        return known + (rest * (J(rest) - m * rest)).sum(2)

    def trace(self, out: Tensor, x: Tensor, graph: bool) -> Tensor:
        """The sum of J's diagonal, (b,), from ``chunk`` of its rows at a time."""
        n, found = math.prod(x.shape[1:]), []
        for first in range(0, n, self.chunk):
            rows = torch.arange(first, min(n, first + self.chunk), device=x.device)
            units = torch.zeros(len(rows), len(x), n, dtype=out.dtype, device=x.device)
            units[torch.arange(len(rows), device=x.device), :, rows] = 1.0
            (g,) = torch.autograd.grad(
                out,
                x,
                units.reshape(len(rows), *x.shape),
                retain_graph=True,
                create_graph=graph,
                is_grads_batched=True,
            )
            found.append((g.reshape(units.shape) * units).sum((0, 2)))
        return torch.stack(found).sum(0)


def projection(Y: Tensor) -> tuple[Tensor, Tensor]:
    """A and B (b, k, k) of a sketch's rows Y (b, k, n): P = Y^T A Y, and 2 P - P^2 = Y^T B Y.

    tr J = tr((2P - P^2) J) + tr((1 - P) J (1 - P)) for every symmetric P. With A = (Y Y^T)^-1 it
    projects on the range, as the orthonormal basis of Meyer et al. does; but where a sketch has
    more rows than J has rank, that basis jumps from one time to the next, which no solver can
    follow. So A is regularised, by 1e-6 of Y Y^T's mean eigenvalue: smooth in time, as unbiased.
    """
    gram = Y @ Y.mT
    size = gram.diagonal(dim1=1, dim2=2).mean(1) * 1e-6 + torch.finfo(Y.dtype).tiny
    unit = torch.eye(Y.shape[1], dtype=Y.dtype, device=Y.device)
    A = torch.linalg.inv_ex(gram + size[:, None, None] * unit).inverse  # inv asks the GPU
    return A, 2 * A - A @ gram @ A


def depends(out: Tensor, x: Tensor) -> bool:
    """Whether autograd reaches x from out.  Reads the graph alone: nothing is computed."""
    if not (out.requires_grad and x.requires_grad):
        return False
    goal, ahead = get_gradient_edge(x).node, [get_gradient_edge(out).node]
    seen = set(ahead)
    while ahead:
        node = ahead.pop()
        if node is goal:
            return True
        new = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= new
        ahead.extend(new)
    return False
