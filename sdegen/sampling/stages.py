"""Cascades: models one after another, each told what the one before has made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import accepted, number, whole
from sdegen.noise.brownian import Brownian
from sdegen.noise.source import Noise, Seeded
from sdegen.sampling.choice import resolved
from sdegen.sampling.march import Solution, solve
from sdegen.sampling.plan import HOW, Plan, begin
from sdegen.solvers.solver import Solver


def noised(c: Tensor, s: Tensor | float, z: Tensor) -> Tensor:
    """sqrt(1 - s^2) c + s z, for s () or (b,) in [0, 1]: a condition with noise, so that a model
    bears what the one before it gets wrong.  Ho et al. (2022), conditioning augmentation;
    Saharia et al. (2022), section 2.4, where s is a level of the process itself."""
    s = torch.as_tensor(s, dtype=c.dtype, device=c.device)
    s = s.reshape(-1, *[1] * (c.ndim - 1)) if s.ndim else s
    return (1 - s * s).sqrt() * c + s * z


@dataclass(frozen=True)
class Stage:
    """One model of a cascade.

    model:   told all but what the stage before has made, as its caption (``given``).
    shape:   of one of its samples.
    how:     as ``solve`` has it: solver, nfe, steps, walk, eta, denoise.
    lift:    samples of the stage before (b, *) -> the condition c (b, k, *space); None of the
             first.
    augment: s of ``noised``, of which the model is told as the number ``augment``; None for one
             that was trained without noise in its condition.
    """

    model: Any
    shape: Sequence[int]
    how: Mapping[str, Any] = field(default_factory=dict)
    lift: Callable[[Tensor], Tensor] | None = None
    augment: float | None = None

    def __post_init__(self) -> None:
        accepted("Stage", self.how, HOW - {"seed", "noise", "t", "graph"})
        if self.augment is not None and not 0 <= number("augment", self.augment) <= 1:
            raise ValueError(f"augment lies in [0, 1], but it is {self.augment!r}.")
        if self.lift is None and self.augment is not None:
            raise ValueError("augment is noise in what the stage before made: give lift too.")


def cascade(stages: Sequence[Stage], n: int, *, seed: int = 0) -> list[Solution]:
    """n samples of every stage, the last one's last: x_k ~ p_k(x | c), c = lift_k(x_(k-1)).

    Sample i of a stage has a stream of its own, of seed, i and the stage, so that neither another
    stage nor another number of samples moves it. The calls of each are in its ``Solution``. A
    sample that failed at one stage is NaN in those after it.

    Raises ValueError for stages that do not fit, before the first is sampled.
    """
    whole("n", n)
    refuse_misfits(stages, n, seed)
    found = list[Solution]()
    for k, stage in enumerate(stages):
        own, model = stream_of(seed, k), stage.model
        if stage.lift is not None:
            c = stage.lift(found[-1].x)
            if stage.augment is not None:
                level = model.sde(model.sde.T)
                c = noised(c, stage.augment, own.stream("augment")(c, level, level))
                model = model.given(augment=stage.augment)
            model = model.given(c=c)
        noise = noise_of(stage, own)
        found.append(solve(model, (n, *stage.shape), noise=noise, **stage.how))
    return found


def stream_of(seed: int, k: int) -> Seeded:
    """The draws of stage k, which no other has."""
    return Seeded(seed).stream(f"stage {k}")


def noise_of(stage: Stage, own: Seeded) -> Noise:
    """What a stage is sampled with: its own draws, or a path of its own where its solver needs
    one."""
    solver = resolved(stage.how.get("solver"))
    if not (isinstance(solver, Solver) and solver.traits.needs_path):
        return own
    return Brownian(int(own.keys(1, torch.device("cpu"))), stage.model.sde.T)


def refuse_misfits(stages: Sequence[Stage], n: int, seed: int) -> None:
    """ValueError for no stages, a first one that is told something, others that are not, a
    condition of another space than its stage's samples, and whatever a stage's plan, start or
    network refuses: each is called once, with a sample of zeros."""
    if not stages or [s.lift is None for s in stages] != [k == 0 for k in range(len(stages))]:
        raise ValueError(
            "A cascade begins with one stage without lift, and every stage after it has one."
        )
    made = torch.empty(0)
    for k, stage in enumerate(stages):
        model, shape = stage.model, (n, *stage.shape)
        if stage.lift is not None:
            c = stage.lift(made)
            if c.shape[2:] != torch.Size(stage.shape[1:]):
                raise ValueError(
                    f"A stage makes samples of shape {tuple(stage.shape)}, but the one before it "
                    f"has {tuple(made.shape[1:])}, which lift makes a condition of "
                    f"{tuple(c.shape[1:])}: their sides must be the same."
                )
            told = {} if stage.augment is None else {"augment": stage.augment}
            model = model.given(c=c, **told)
        noise = noise_of(stage, stream_of(seed, k))
        plan = Plan.of(model, shape, noise=noise, **stage.how)
        begin(plan.equation, shape, plan.levels[0])
        kind = torch.promote_types(model.dtype or torch.get_default_dtype(), torch.float32)
        made = torch.zeros(shape, dtype=kind, device=model.device)
        one = torch.zeros(1, dtype=torch.int64)
        model.take(one).output(made[:1], plan.walk[0])
