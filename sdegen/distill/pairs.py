"""Reflow: pairs of noise and what a flow makes of it, and how straight its paths are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdegen.checks import whole
from sdegen.data.arrays import ArrayData
from sdegen.distill.straight import moved, straightened, velocity
from sdegen.files import read_tensors, write_tensors
from sdegen.model.denoiser import Denoiser
from sdegen.noise.source import Seeded
from sdegen.sampling.march import solve
from sdegen.sampling.plan import Way
from sdegen.sde.level import Level, expand
from sdegen.sde.process import linear
from sdegen.walks.grids import straight

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Data and the noise that they were made of, (x0, z): (n, 2, *), with labels y (n,) or none.

    A data set for ``dsm_loss(couple=stored)``: items are pairs (2, *) and labels; ``shape`` is
    that of x0.  Liu et al. (2023), alg. 1: a flow trained on its own pairs is straighter.
    """

    def __init__(self, pairs: Tensor, y: Tensor | None = None, classes: int = 0) -> None:
        if pairs.ndim < 3 or pairs.shape[1] != 2:
            raise ValueError(f"Pairs are (n, 2, *), but these are {tuple(pairs.shape)}.")
        data = ArrayData(pairs, y)
        self.pairs, self.y, self.classes = data.x, data.y, max(classes, data.classes)
        self.shape, self.names, self.levels = data.shape[1:], (), 0

    @property
    def x(self) -> Tensor:
        """The data alone, (n, *)."""
        return self.pairs[:, 0]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.pairs[i], self.y[i]

    def write(self, path: Path) -> None:
        """Into one safetensors file."""
        tensors = {"pairs": self.pairs} | ({"y": self.y} if self.classes else {})
        write_tensors(path, tensors, {"classes": self.classes})

    @classmethod
    def read(cls, path: str | Path) -> Pairs:
        """From such a file; ValueError for another."""
        tensors, about = read_tensors(Path(path))
        if "pairs" not in tensors:
            raise ValueError(f"{path} holds {', '.join(tensors)}, and no pairs.")
        return cls(tensors["pairs"], tensors.get("y"), about.get("classes", 0))


def pairs_of(
    model: Denoiser,
    n: int,
    shape: Sequence[int],
    *,
    seed: int = 0,
    batch_size: int = 256,
    y: Tensor | None = None,
    classes: int = 0,
    **how: Unpack[Way],
) -> Pairs:
    """n pairs that a model's probability flow makes: pair i is that of (seed, i), whatever n and
    the batches are.

    shape: of a sample.  y: labels (n,), given to the model.  how: of ``solve``.

    A pair's noise is z = (x_T - alpha_T x0) / sigma_T, so that its path begins where its flow did,
    whatever the prior: the draw itself where the SDE ends in noise alone, as ``FlowSDE(T=1.0)``
    does. ValueError for a solver of an eta of its own, and where a sample is not finite.
    """
    whole("n", n)
    top = linear(model.sde, "pairs_of", "take a LinearSDE")(model.sde.T)
    made = []
    for first in range(0, n, batch_size):
        part = slice(first, min(first + batch_size, n))
        m = part.stop - part.start
        given = model if y is None else model.given(y=y[part].to(model.device))  # type: ignore[attr-defined]
        like = torch.empty(m, *shape, device=model.device, dtype=torch.float32)
        z = Seeded(seed, first=first).stream("prior")(like, top, top)
        x = model.sde.prior.sample(z)
        x0 = solve(given, x, eta=0.0, **how).x
        if not bool(x0.isfinite().all()):
            raise ValueError(f"A sample of pairs {first} to {part.stop - 1} is not finite.")
        z = (x - expand(top.alpha, x) * x0) * expand(1 / top.sigma, x)
        made.append(torch.stack([x0, z.to(x0)], dim=1).cpu())
    return Pairs(torch.cat(made), y, classes)


@torch.no_grad()
def straightness(
    model: Denoiser, shape: Sequence[int], n: int = 1000, *, steps: int = 100, seed: int = 0
) -> float:
    """INT E |(y_1 - y_0) - dy/dtau|^2 dtau per dimension, over tau's way of n samples.

    Liu et al. (2023), sec. 2, in the straightened coordinates that every linear SDE has; 0 where
    one Euler step is exact. Of Gaussian data of std s and independent noise s (2 - pi / 2), the
    model's mistakes left aside.

    shape: of a sample.  steps: second-order ones, equal in tau, one network call each.
    """
    sde = straightened(model.sde, "straightness")
    whole("steps", steps, 2)
    levels: list[Level] = sde(straight(sde, steps)).unbind()  # type: ignore[assignment]
    like = torch.empty(n, *shape, device=model.device, dtype=torch.float32)
    x = sde.prior.sample(Seeded(seed).stream("prior")(like, levels[0], levels[0]))
    before, weights = None, 0.0
    total = squares = torch.zeros_like(x, dtype=torch.float64)  # a difference of both is wanted
    for k, t in enumerate(levels):
        u = velocity(model, x, t)
        w = 0.5 if k in (0, steps) else 1.0  # the trapezoidal rule
        wide = u.double()
        total, squares, weights = total + w * wide, squares + w * wide.square(), weights + w
        if k < steps:
            x = moved(x, t, levels[k + 1], u if before is None else 1.5 * u - 0.5 * before)
        before = u
    spread = squares / weights - (total / weights).square()
    return float(spread.mean()) * float(levels[0].tau - levels[-1].tau)
