"""Is this a digit? Likelihoods of digits, of digits with their pixels shuffled, of photographs.

    python examples/out_of_distribution.py [training steps, default 400]

Trains a small network on handwritten digits (about a minute), then ranks 8 x 8 pictures that it
never saw by their likelihood under the probability flow, in bits per dimension, and prints how
often a digit is more likely than something else (the area under the ROC curve; 0.5 is a guess).
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import InfiniteBatches, digits, photo_patches
from sdegen.networks import UNet

LEVELS = 17


def train(steps: int) -> sg.ScoreModel:
    """Denoising score matching on dequantised digits."""
    torch.manual_seed(0)
    data, net = digits("train"), UNet(channels=1, width=16)
    model = sg.ScoreModel(net, sg.VPSDE(), "edm", sigma_data=0.75)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _, batch in zip(range(steps), InfiniteBatches(len(data), 128), strict=False):
        optimizer.zero_grad()
        loss = sg.losses.dequantised(model, data.x[batch], levels=LEVELS, loss=sg.dsm_loss).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def pictures(n: int) -> dict[str, Tensor]:
    """Pictures of 17 greys, (n, 1, 8, 8) in torch.uint8."""
    test = digits("test").x[:n]
    order = torch.stack([torch.randperm(64) for _ in range(n)])
    shuffled = test.reshape(n, 64).gather(1, order).reshape(test.shape)
    photos = photo_patches("all", size=8, stride=37).x[:n].mean(1, keepdim=True)
    found = {"digits": test, "shuffled digits": shuffled, "photo patches": photos}
    return {name: ((x + 1) * 8).round().to(torch.uint8) for name, x in found.items()}


def main(steps: int = 400, n: int = 64) -> dict[str, float]:
    """Train, measure and print; the areas by name."""
    model, areas = train(steps), {}
    solver = sg.UniPC()
    bits = {
        name: sg.bits_per_dim(model, x, levels=LEVELS, solver=solver, steps=60, probes=1).value
        for name, x in pictures(n).items()
    }
    for name, value in bits.items():
        areas[name] = float((bits["digits"][:, None] < value[None]).double().mean())
        print(f"{name:16s} {float(value.mean()):6.2f} bits/dim, told apart {areas[name]:.2f}")
    return areas


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
