"""From the arguments of ``solve`` to what it does: one value, a Plan, made once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import torch
from torch import Tensor

from sdegen.checks import accepted, flag, tensor, whole
from sdegen.model.denoiser import Denoiser, cost_of
from sdegen.noise.brownian import Brownian
from sdegen.noise.source import Fresh, Noise, Seeded, check_noise
from sdegen.programs.program import Program
from sdegen.programs.remembered import programmed
from sdegen.sampling.choice import Chooser, chosen
from sdegen.sde.level import Instant, Level, expand
from sdegen.sde.process import SDE, LinearSDE, linear
from sdegen.solvers.budget import calls_along, walk_for
from sdegen.solvers.equation import Eta, Reverse
from sdegen.solvers.solver import (
    Solver,
    Status,
    Tally,
    check,
    check_levels,
    check_path,
)
from sdegen.walks.grids import WalkLike, as_times
from sdegen.walks.walk import Walk

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Way(TypedDict, total=False):
    """Which solver, and how far its steps go: what ``encode``, ``decode`` and ``log_prob`` take.

    solver:  a Solver; a Chooser, which finds one for a budget; or the name of either, as
             ``sg.solvers.catalogue()`` has them ("dpmpp") and ``choosers()`` ("auto", which probes
             some for this model). ``solve``'s default is "recommended", what
             ``recipes.recommended`` says for so many network calls, on its walk.
    steps:   solver steps.
    nfe:     instead, as many steps as so many network calls allow.
    walk:    a grid by name ("log_snr", "karras", "uniform", "quadratic"), a grid function
             (sde, n) -> times, the times themselves (n + 1,), which may climb, or a ``Walk``.
             Default: log_snr where the SDE has marginals, uniform otherwise, unless the solver
             comes with one.
    """

    solver: Solver | Chooser | str | None
    steps: int | None
    nfe: int | None
    walk: WalkLike | None


class How(Way, total=False):
    """All that ``solve`` and ``sample`` make a Plan of.

    eta:     0 for the probability-flow ODE, 1 for Song et al.'s reverse SDE, a function of lam or
             one number per step; default the solver's.
    seed:    an int (sample i has stream (seed, i)) or one int per sample.
    noise:   instead, a source of noise. Neither: torch's own generator.
    t:       the time of the states that are given: a walk that is a grid begins there, one of
             times has to.
    denoise: end at E[x0 | x] of the last state, for one more network call (Tweedie's formula).
    graph:   True keeps the graph of gradients, from the samples back to start, conditions and
             parameters; "checkpoint" keeps only each step's ends of it, and makes the rest again
             when it is asked for, at one more network call for each.
    """

    eta: Eta | None
    seed: int | Sequence[int] | None
    noise: Noise | None
    t: float | None
    denoise: bool
    graph: bool | Literal["checkpoint"]


WAY = frozenset(Way.__annotations__)
HOW = frozenset(How.__annotations__)


@dataclass(frozen=True, eq=False)
class Plan:
    """What is going to be done, decided: made once, from the arguments of ``solve``.

    solver, equation, walk: who steps, what is solved (with the model and its noise), and along
             which levels.
    program: what the solver's steps come to, None where they run one by one: see programs/.
    denoise, graph: as in ``How``.
    choice:  what the chooser said, None where a solver was given.
    """

    solver: Solver
    equation: Reverse
    walk: Walk
    program: Program | None = None
    denoise: bool = False
    graph: bool | Literal["checkpoint"] = False
    choice: Any = None

    @classmethod
    def of(cls, model: Denoiser, start: Sequence[int] | Tensor = (), **how: Unpack[How]) -> Plan:
        """From ``How``'s arguments, for states of a shape (b, *), or the states themselves.

        ValueError for a combination that cannot be solved, before the network is called (but by a
        chooser); TypeError for an argument that there is not, with the nearest that there is.
        """
        accepted("Plan.of", how, HOW)
        if not hasattr(model, "output"):
            raise ValueError(
                "A model is a ScoreModel or another Denoiser, which has output(x, level), but it "
                f"is of {type(model).__name__}: ScoreModel(net, sde) makes one of a network."
            )
        sde, graph = model.sde, how.get("graph") or False
        denoise = flag("denoise", how.get("denoise") or False)
        steps, nfe, spare = how.get("steps"), calls_of(model, how.get("nfe")), int(denoise)
        given, t, asked = as_times(how.get("walk")), plain(how.get("t")), how.get("solver")
        solver, walk, choice = chosen(model, shape_of(start), asked, steps, nfe, given, spare, t)
        answered = walk is not given and not isinstance(walk, str)
        if choice is not None and answered and isinstance(walk, Tensor | Sequence):
            steps = nfe = None  # a chooser's times are its answer to the budget
        eta, noise = how.get("eta"), source(how.get("seed"), how.get("noise"), solver, sde)
        equation = Reverse(model, solver.eta if eta is None else eta, noise)
        check(solver, equation)
        if denoise:
            linear(sde, "denoise", "leave it out")
        if graph not in (True, False, "checkpoint"):
            raise ValueError(f'graph is True, False or "checkpoint", but it is {graph!r}.')
        route = walk_for(solver, sde, steps=steps, nfe=nfe, walk=walk, spare=spare, t=t)
        check_path(equation, route.times.tolist())
        program = programmed(solver, model, equation.eta, route.times)
        if program is None:
            check_levels(solver, equation, route.levels)
        if graph:
            program = None  # it writes over its states, which a graph of gradients needs
        return cls(solver, equation, route, program, denoise, graph, choice)

    @property
    def levels(self) -> tuple[Instant, ...]:
        """Of the walk."""
        return self.walk.levels if self.program is None else self.program.walk

    @property
    def steps(self) -> int:
        """Of the walk, and the one that denoises."""
        return self.walk.steps + int(self.denoise)

    @property
    def nfe(self) -> int | None:
        """Network evaluations on each sample, at most where a wrapper may leave one out; None
        where the solver decides that on the way."""
        if self.solver.traits.adaptive:
            return None
        calls = calls_along(self.solver, self.walk) + int(self.denoise)
        return calls * cost_of(self.equation.model)

    @property
    def noisy(self) -> bool:
        """True where states end above t_min, with the noise of that level."""
        sde = self.equation.sde
        return not self.denoise and self.walk.last > sde.t_min + 1e-6 * sde.T

    def __str__(self) -> str:
        """What is done, in a line."""
        calls = "as many network calls as it takes" if self.nfe is None else f"{self.nfe} calls"
        return f"{self.solver}, eta = {self.equation.eta}, along {self.walk}: {calls}"


# ------------------------------------------------------------------------------------- its parts


def source(
    seed: int | Sequence[int] | None, noise: Noise | None, solver: Solver, sde: SDE
) -> Noise:
    """The noise source that a seed or a source names; one path where the solver needs one."""
    if seed is not None and noise is not None:
        raise ValueError("Give a seed or a noise source, not both.")
    if noise is not None:
        return check_noise(noise).begun()
    if solver.traits.needs_path:
        return Brownian(int(torch.randint(2**63 - 1, ())) if seed is None else seed, sde.T)
    return Fresh() if seed is None else Seeded(seed)


MISSED = 0.1
"""The part of the variance that a prior scaled to a smaller sigma may lack more than at T: few of
DDPM's steps, counted from 0, start about as low."""


def plain(value: Any) -> Any:
    """A tensor or an array of one number as that number."""
    return value.item() if hasattr(value, "item") and not getattr(value, "ndim", 1) else value


def shape_of(start: Sequence[int] | Tensor) -> tuple[int, ...]:
    """The shape (b, *) that was given, or of the states that were; ValueError for neither."""
    if isinstance(start, Tensor):
        return tuple(start.shape)
    if isinstance(start, str) or not isinstance(start, Iterable):
        raise ValueError(f"Give a shape (b, *), as (16, 3, 32, 32), or states x_T, not {start!r}.")
    shape = tuple(start)
    if shape and not all(
        isinstance(n, Integral) and type(n) is not bool and n >= 1 for n in shape
    ):
        hint = "; of states, torch.as_tensor makes a tensor" if hasattr(start, "__array__") else ""
        raise ValueError(
            f"A shape (b, *) has positive whole numbers, but it is {shape!r:.60s}{hint}."
        )
    return shape


def begin(p: Reverse, start: Sequence[int] | Tensor, top: Instant) -> Tensor:
    """The states (b, *) to start from: those given, or draws from the prior.

    Below T the prior of a linear SDE is scaled as sigma is. It stands for noise alone: of data of
    variance 1 it lacks the part alpha^2 / (alpha^2 + sigma^2) of the variance, and all structure.
    ValueError where that is ``MISSED`` more than at T: such states are made of data.
    """
    if isinstance(start, Tensor):
        if not tensor("x_T", start).is_floating_point() or start.ndim < 1 or len(start) == 0:
            raise ValueError(
                "x_T must be a floating-point tensor (b, *) with b >= 1, but it is "
                f"{start.dtype} of shape {tuple(start.shape)}."
            )
        return start
    shape = shape_of(start)
    if not shape:
        raise ValueError("A shape (b, *) has positive whole numbers, but it is ().")
    dtype = p.model.dtype or torch.get_default_dtype()
    like = torch.empty(
        shape, device=p.model.device, dtype=torch.promote_types(dtype, torch.float32)
    )
    x = p.sde.prior.sample(p.noise.stream("prior")(like, top, top))
    if isinstance(p.sde, LinearSDE) and isinstance(top, Level):
        end = p.sde(p.sde.T)
        lacks, usual = ((1 / (1 + level.rho**2)).detach() for level in (top, end))
        if bool((lacks > usual + MISSED).any()):
            raise ValueError(
                f"The walk starts at t = {float(top.t):g}, where {100 * lacks.max():.0f} % of the "
                "variance of data of variance 1 is signal, which no prior draws: give x_T, as "
                "sde.perturb makes of data, in place of a shape, or start nearer to "
                f"T = {p.sde.T:g}."
            )
        mean, _ = p.sde.prior.like(x)
        x = mean + (x - mean) * expand(top.sigma / end.sigma, x)
    return x


def calls_of(model: Denoiser, nfe: Any) -> Any:
    """A budget of network evaluations as calls of a model; ValueError for less than one."""
    cost = cost_of(model)
    if cost == 1 or nfe is None:
        return nfe
    if whole("nfe", nfe) < cost:
        raise ValueError(
            f"One call of {type(model).__name__} is {cost} network evaluations, but nfe = {nfe}."
        )
    return nfe // cost


def calls_and_status(x: Tensor, tallies: Sequence[Tally], nfe: int) -> tuple[Tensor, Tensor]:
    """Calls (b,) and status (b,) of final states x: from what each sample's steps say of it.

    nfe: network calls of the steps that say nothing, which took all samples along.
    """
    calls = torch.full((len(x),), nfe)
    status = torch.zeros(len(x), dtype=torch.int8, device=x.device)
    if tallies:
        calls += torch.stack([tally.nfe for tally in tallies]).sum(0)
        status = torch.stack([tally.status for tally in tallies]).amax(0).to(status)
    sick = ~x.detach().reshape(len(x), -1).abs().amax(1).isfinite()
    return calls, torch.where((status == 0) & sick, int(Status.NONFINITE), status).to(torch.int8)
