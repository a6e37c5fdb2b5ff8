"""Samples on the way: what the averaged model makes at some steps of its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sdegen.checks import warn
from sdegen.files import claim, clear_parts, write_tensors
from sdegen.model.score import ScoreModel
from sdegen.runs.compare import as_is
from sdegen.runs.pictures import picture, shown
from sdegen.runs.restoring import Seen, prepared
from sdegen.runs.telling import Prompts
from sdegen.sampling.march import solve
from sdegen.sampling.plan import Plan
from sdegen.solvers.solver import arrived

PROGRESS = "progress"
"""The folder of these samples in a run's."""
NFE = 20
POINTS, OTHERS = 2000, 100
"""How many samples at once: points of the plane, and what is larger."""


@dataclass(frozen=True)
class Progress:
    """Samples of a shape, always of the same starts and labels, into a folder of the run's.

    every: steps between them.  counts: how often the classes come, empty where the model takes
    none; names: theirs.  seed: of the starts.  most: as many as fit into the memory.  decoded:
    states as data.
    """

    folder: Path
    shape: Sequence[int]
    counts: list[int]
    names: Sequence[str]
    seed: int
    every: int
    most: int
    some: Seen | Prompts | None = None
    decoded: Callable[[Tensor], Tensor] = as_is

    def refuse_early(self, model: ScoreModel) -> None:
        """Raise now what the solver would refuse later."""
        if self.every:
            Plan.of(model, nfe=NFE, seed=self.seed)

    def due(self, step: int) -> bool:
        """Whether there are to be samples at a step."""
        return self.every > 0 and step % self.every == 0

    def draw(self, model: ScoreModel, step: int) -> Path | None:
        """A picture of the model's samples, and the samples; where the picture is, if there is
        one.

        A warning, and no more, where that does not work. Torch's generators are left alone: what
        is trained is the same with and without.
        """
        n = POINTS if list(self.shape) == [2] else min(OTHERS, self.most)
        place = self.folder / PROGRESS
        gpu = [model.device] if model.device.type == "cuda" else []
        try:
            claim(place)
            clear_parts(place)
            with torch.random.fork_rng(gpu):
                given = prepared(model, n, self.counts, self.some)
                made = solve(given, (n, *self.shape), nfe=NFE, seed=self.seed)
            good, x = arrived(made.status), self.decoded(made.x)
            about = {"step": step, "seed": self.seed, "nfe": NFE}
            tensors = {"x": x, "status": made.status}
            if self.counts:
                tensors["y"] = given.conditions["y"]
            write_tensors(place / f"{step:08}.safetensors", tensors, about)
            path = place / f"{step:08}.png"
            if good.any():
                y = tensors["y"][good] if self.counts else None
                title = f"step {step}, {NFE} NFE"
                picture(shown(x[good], y, self.names), path, title)
            if not good.all():
                warn(f"At step {step} {int((~good).sum())} of {n} samples did not arrive.")
            return path if path.is_file() else None
        except (ValueError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            warn(f"There are no samples of step {step}: {reason}")
            return None
