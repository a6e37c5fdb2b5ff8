"""Cubes of a brain: a model of volumes, and a gap of slices that it fills.

    python examples/brain.py outputs/brain [--quick]

Patches of 16 x 16 x 16 voxels of the MNI152 template, learned from the back of the head. Of those
from its front six slices are lost; what is known is held and the rest drawn. Beside it the slices
between, from the two that bound the gap, by proportion.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import brain_patches
from sdegen.files import write_json
from sdegen.guidance import Known
from sdegen.losses import EDMWeighting, LogNormalTime, low_discrepancy
from sdegen.metrics import psnr, sliced_wasserstein
from sdegen.networks import UNet
from sdegen.plots import save_samples
from sdegen.training import Trainer, TrainSettings

GAP = slice(5, 11)


def filled(model: Any, x: Tensor, seed: int) -> Tensor:
    """Cubes (b, 1, 16, 16, 16) whose slices in the gap are drawn anew."""
    known = torch.ones(1, *x.shape[1:], dtype=torch.bool)
    known[:, :, GAP] = False
    walk = sg.walks.repaint(model.sde, sg.walks.karras(model.sde, 20, stop=0.01), 4, 3)
    held = Known(model, x, known)
    return sg.sample(held, x.shape, solver=sg.DDIM(), walk=walk, seed=seed, denoise=True)


def between(x: Tensor) -> Tensor:
    """The same by proportion of the two slices that bound the gap."""
    n = GAP.stop - GAP.start + 1
    w = (torch.arange(1, n) / n).reshape(1, 1, -1, 1, 1)
    low, high = x[:, :, GAP.start - 1 : GAP.start], x[:, :, GAP.stop : GAP.stop + 1]
    y = x.clone()
    y[:, :, GAP] = (1 - w) * low + w * high
    return y


def lost(x: Tensor) -> Tensor:
    """The slices of the gap as images (6 b, 1, 16, 16)."""
    return x[:, 0, GAP].flatten(0, 1)[:, None].clamp(-1, 1)


def main(folder: str, quick: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train, draw, fill gaps."""
    torch.manual_seed(seed)
    steps, count, draws = (2, 2, 1) if quick else (250, 8, 2)
    train, test = brain_patches("train", stride=4), brain_patches("test")
    std = float(train.x.std())
    net = UNet(1, 16, (1, 2), attention=(), dims=3)
    model = sg.ScoreModel(net, sg.EDMSDE(T=20.0), "edm", sigma_data=std)
    loss = partial(sg.dsm_loss, weighting=EDMWeighting(std), times=LogNormalTime(-0.8),
                   draw=low_discrepancy)  # fmt: skip
    settings = TrainSettings(steps, 8, schedule="cosine", ema=0.99, device="cpu")
    rate = partial(torch.optim.AdamW, lr=2e-3)
    Path(folder).mkdir(parents=True, exist_ok=True)
    trainer = Trainer(model, train, loss, rate, settings, Path(folder))
    print([record.loss for record in trainer.steps()][-1:], flush=True)
    model, x = trainer.averaged, test.x[torch.randperm(len(test))[:count]]
    drawn = sg.sample(model, x.shape, nfe=20, seed=seed)
    floor = train.x[torch.randperm(len(train))]
    made = torch.stack([filled(model, x, k) for k in range(draws)])
    rows = [
        ("drawn cubes beside the training's: sliced W2", sliced_wasserstein(drawn, floor[:count]),
         sliced_wasserstein(floor[count : 2 * count], floor[:count]), "of others of it"),
        ("a gap of six slices: PSNR of one draw", psnr(lost(made[0]), lost(x)),
         psnr(lost(between(x)), lost(x)), "by proportion of its two sides"),
        (f"a gap of six slices: PSNR of the mean of {draws} draws",
         psnr(lost(made.mean(0)), lost(x)),
         psnr(lost(between(x)), lost(x)), "by proportion of its two sides"),
    ]  # fmt: skip
    names = ("what", "value", "beside", "of")
    figures = [{**dict(zip(names, row, strict=True)), "wished": ""} for row in rows]
    print(*figures, sep="\n")
    sheet = [each[k, 0, 3:13][:, None] for k in range(2) for each in (x, made[0], between(x))]
    title = "Slices 3 to 12: true, drawn from 5 to 10, by proportion; two cubes"
    save_samples(torch.cat(sheet), f"{folder}/picture.png", title, 10)
    config = {"steps": steps, "cubes": len(train), "filled": count, "seed": seed}
    write_json(Path(folder) / "result.json", {"config": config, "figures": figures})
    return {"config": config, "figures": figures}


if __name__ == "__main__":
    main(sys.argv[1], "--quick" in sys.argv)
