"""A whole walk in one CUDA graph: all kernels of a sample launched at once, again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdegen.checks import accepted
from sdegen.model.denoiser import Denoiser
from sdegen.noise.source import Seeded
from sdegen.programs.program import check_view
from sdegen.programs.remembered import traced
from sdegen.sampling.plan import WAY, How, Plan, begin

if TYPE_CHECKING:
    from typing_extensions import Unpack

WARM_UP = 2
"""Runs before the capture, in which libraries choose kernels and a compiled network compiles."""


class Captured:
    """``sample`` as a CUDA graph.  Called with a seed, or a start, or neither, it gives samples.

    The same seed gives the samples of ``sample`` to the last bit. The network's weights may change
    in between, and its conditions by ``given``; its Python code is not run again.
    ``nfe``, ``vjps``: network calls, and products with its Jacobian, of one run.
    """

    def __init__(
        self,
        model: Denoiser,
        start: Sequence[int] | Tensor,
        **how: Unpack[How],
    ) -> None:
        """solver, steps, nfe, walk and eta as ``solve``'s.

        NotLinear for a solver that has no program; ValueError where there is no CUDA device to
        capture on, and for ``graph``.
        """
        accepted("Captured", how, WAY | {"eta", "graph"})
        if how.get("graph"):
            raise ValueError(
                "A captured loop keeps no graph of gradients: leave out graph, or use "
                "sample(..., graph=True), which runs the plain loop."
            )
        self.noise, self.shape, self.model = Seeded(0), start, model
        if hasattr(model, "with_values"):  # memory of its own, for others to be written into
            model = model.with_values(once(torch.clone))
        plan = Plan.of(model, start, **how, noise=self.noise)  # type: ignore[misc]
        self.p, times = plan.equation, plan.walk.times
        self.program = plan.program or traced(
            plan.solver, model.sde, times, self.p.eta, predicts=model.target
        )
        self.start = begin(self.p, start, self.program.walk[0]).clone()
        check_device(self.start)
        check_view(model)
        before = model.nfe, model.vjps
        with torch.no_grad():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self.run()
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.end = self.run()
        self.nfe = (model.nfe - before[0]) // (WARM_UP + 1)
        self.vjps = (model.vjps - before[1]) // (WARM_UP + 1)
        model.count(-self.nfe, -self.vjps)  # the capture itself runs nothing

    def run(self) -> Tensor:
        """The walk from the static start, with the first draws of the static keys."""
        self.noise.rewind()
        end = self.start
        for end in self.program.execute(self.p.model, self.start, self.noise):  # noqa: B007
            pass
        return end

    @torch.no_grad()
    def __call__(
        self,
        start: Tensor | None = None,
        *,
        seed: int | Sequence[int] | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Samples (b, *) from a start x_T (b, *), by default drawn from the prior.

        seed: of the prior and of the walk; by default one drawn by torch.
        given: conditions in the place of the model's, from now on, of the same shapes.
        """
        if given is not None:
            self.tell(given)
        seed = int(torch.randint(2**63 - 1, ())) if seed is None else seed
        self.noise.reseed(seed)
        if start is None:
            start = begin(self.p, self.shape, self.program.walk[0])
        if start.shape != self.start.shape or start.dtype != self.start.dtype:
            raise ValueError(
                f"The graph was captured for states of shape {tuple(self.start.shape)} and "
                f"{self.start.dtype}, but these are {tuple(start.shape)} and {start.dtype}."
            )
        self.start.copy_(start)
        self.graph.replay()
        self.p.model.count(self.nfe, self.vjps)
        return self.end.clone()

    def tell(self, given: Mapping[str, Any]) -> None:
        """Write conditions into those of the capture; ValueError where they are not like them."""
        told, names = self.model, getattr(self.model, "conditions", {})
        for name in given:
            if name not in names or told.sde.conditions:
                raise ValueError(
                    f"The graph was captured for the conditions {', '.join(names) or 'none'}, of "
                    f"the network alone: capture another one for {name}."
                )
            if not isinstance(names[name], Tensor) or not isinstance(given[name], Tensor):
                raise ValueError(
                    f"The graph knows {name} = {names[name]!r} as it was captured, and takes "
                    f"tensors in the place of tensors alone, not {given[name]!r}: capture another."
                )
        self.model = told.given(**given)  # type: ignore[attr-defined]
        new, old = values_of(self.model), values_of(self.p.model)
        alike = [(a.shape, a.dtype) == (b.shape, b.dtype) for a, b in zip(old, new, strict=False)]
        if len(old) != len(new) or not all(alike):
            self.model = told
            shapes = ", ".join(f"{tuple(each.shape)} {each.dtype}" for each in old)
            raise ValueError(
                f"The graph was captured for conditions {shapes}: give others like them."
            )
        for a, b in zip(old, new, strict=True):
            a.copy_(b)


def once(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A change that makes one tensor of one, however often it is asked."""
    made: dict[int, tuple[Tensor, Tensor]] = {}

    def asked(x: Tensor) -> Tensor:
        if id(x) not in made:
            made[id(x)] = x, change(x)
        return made[id(x)][1]

    return asked


def values_of(model: Any) -> list[Tensor]:
    """The tensors that a model depends on beside its networks' weights, in one order."""
    found = list[Tensor]()

    def look(x: Tensor) -> Tensor:
        found.append(x)
        return x

    model.with_values(look)
    return found


def check_device(x: Tensor) -> None:
    """Refuse a capture where there are no CUDA graphs."""
    if x.device.type != "cuda":
        raise ValueError(
            f"A CUDA graph is captured on a CUDA device, but the states are on {x.device}: use "
            "sample, which runs the same program."
        )
