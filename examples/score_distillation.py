"""DreamFusion in small: a model of pictures as the loss of what is drawn.  Poole et al. (2023).

    sdegen-train experiment=digits
    python examples/score_distillation.py outputs/score_distillation [outputs/digits]

Two renderers are moved to where a model of digits would have their pictures, by score distillation
alone: blobs of ink in the plane, and a grid of density in space that is seen along parallel rays
from any side. A classifier of real digits then reads them, from views that were never drawn.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.data import digits
from sdegen.distill import Within, sds_loss
from sdegen.files import write_json
from sdegen.guidance import CFG
from sdegen.metrics import fit_classifier
from sdegen.plots import save_samples
from sdegen.runs.folder import load_run

SIDE, GRID = 8, 16
"""Of pictures, in pixels, and of space, in cells."""


class Blobs(nn.Module):
    """Gaussian blobs of ink: 1 - exp(-sum_k a_k exp(-|p - c_k|^2 / 2 s_k^2)) at pixels p."""

    def __init__(self, views: int, k: int = 12) -> None:
        super().__init__()
        self.at = nn.Parameter(0.5 * torch.randn(views, k, 2))
        self.ink = nn.Parameter(torch.zeros(views, k))
        self.size = nn.Parameter(torch.full((views, k), -1.5))
        line = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
        pixels = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
        self.register_buffer("pixels", pixels.reshape(-1, 2))

    def forward(self) -> Tensor:
        """(views, 1, 8, 8) in [-1, 1]."""
        square = torch.cdist(self.pixels.expand(len(self.at), -1, -1), self.at).square()
        width = self.size.exp().square()[:, None]
        depth = (F.softplus(self.ink)[:, None] * (-square / (2 * width)).exp()).sum(2)
        return (1 - 2 * (-depth).exp()).reshape(-1, 1, SIDE, SIDE)


class Volume(nn.Module):
    """Density in a cube, by parallel rays: 1 - exp(-integral of the density along a ray)."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(0.1 * torch.randn(1, 1, GRID, GRID, GRID) - 3)
        x = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
        z = (torch.arange(GRID) + 0.5) * 2 / GRID - 1
        depth, row, column = torch.meshgrid(z, x, x, indexing="ij")
        self.register_buffer("rays", torch.stack([column, row, depth], -1))  # (16, 8, 8, 3)

    def forward(self, yaw: Tensor) -> Tensor:
        """(views, 1, 8, 8) in [-1, 1], of cameras that have gone around by angles (views,)."""
        c, s, o, one = yaw.cos(), yaw.sin(), 0 * yaw, 1 + 0 * yaw
        turn = torch.stack([c, o, s, o, one, o, -s, o, c], 1).reshape(-1, 3, 3)
        places = torch.einsum("vij,dhwj->vdhwi", turn, self.rays)
        density = F.softplus(self.raw).expand(len(yaw), -1, -1, -1, -1)
        along = F.grid_sample(density, places, align_corners=False)[:, 0]  # (v, 16, 8, 8)
        return (1 - 2 * (-along.sum(1)).exp())[:, None]


def distil(
    model: Any, theta: nn.Module, views: Any, steps: int, scale: float, lr: float = 0.05
) -> None:
    """Adam on what pictures of views(step) would be moved by; guided, from much noise to less."""
    optimizer = torch.optim.Adam(theta.parameters(), lr=lr)
    for k in range(steps):
        x = theta(*views())
        guided = CFG(model, scale, without={"y": 10})
        high = 0.98 - 0.68 * k / steps
        optimizer.zero_grad()
        sds_loss(guided, x, times=Within(0.02, high)).mean().backward()
        optimizer.step()


def within(reach: float, n: int) -> Tensor:
    """n angles, uniform up to ``reach`` to both sides."""
    return reach * (2 * torch.rand(n) - 1)


def main(folder: str, run: str = "outputs/digits", quick: bool = False) -> dict[str, float]:
    """Draw, read, and write result.json and picture.png into a folder: of two seeds the lower
    shares."""
    steps, scale, n = (4 if quick else 300), 10.0, 16
    model = load_run(Path(run), [], "cpu").model.eval().requires_grad_(False)
    train, test = digits("train"), digits("test")
    judge = fit_classifier(train.x, train.y, steps=20 if quick else 300)
    figures, rows = dict[str, float](), list[Tensor]()

    def read(x: Tensor, y: Tensor | int) -> float:
        with torch.no_grad():
            return float((judge(x).argmax(1) == y).double().mean())

    def found(name: str, share: float, row: Tensor) -> None:
        figures[name] = min(share, figures.get(name, 1.0))
        rows.append(row.detach())

    for seed in range(1 if quick else 2):
        torch.manual_seed(seed)
        y = torch.arange(10).repeat_interleave(2)
        blobs = Blobs(len(y))
        distil(model.given(y=y), blobs, lambda: (), steps, scale)
        found("of blobs, all ten digits", read(blobs(), y), blobs()[::2])
        for digit, degrees in ((3, 60), (8, 180), (0, 180)):
            volume, reach = Volume(), math.radians(degrees)
            told = model.given(y=torch.full((n,), digit))
            distil(told, volume, lambda reach=reach: (within(reach, n),), steps, scale)
            share = read(volume(within(reach, 200)), digit)
            name = f"of a {digit} in space, views to {degrees} degrees"
            found(name, share, volume(torch.linspace(-reach, reach, 10)))
    title = "Blobs; a 3, an 8 and a 0 in space, from the left to the right"
    save_samples(torch.cat(rows), Path(folder) / "picture.png", title, columns=10)
    beside = {"beside": read(test.x, test.y), "of": "held-out digits", "wished": ">= 0.9"}
    listed = [{"what": f"share read {k}", "value": v, **beside} for k, v in figures.items()]
    config = {"steps": steps, "scale": scale, "views": n, "run": run}
    write_json(Path(folder) / "result.json", {"config": config, "figures": listed})
    return figures


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--quick"]
    for what, share in main(*words, quick="--quick" in sys.argv).items():
        print(f"{what:45s} {share:.3f}")
