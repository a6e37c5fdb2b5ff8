"""Train a small network on a two-dimensional set and sample it with three solvers.

python examples/two_dimensions.py
"""

from __future__ import annotations

from itertools import islice

import torch

import sdegen as sg
from sdegen.data import InfiniteBatches, toy
from sdegen.metrics import sliced_wasserstein
from sdegen.networks import MLP
from sdegen.plots import save_samples


def main(steps: int = 3000, folder: str = "outputs") -> dict[str, float]:
    """Sliced Wasserstein distance to fresh data, by solver."""
    torch.manual_seed(0)
    data, fresh = toy("checkerboard"), toy("checkerboard", n=2000, seed=1)
    model = sg.ScoreModel(MLP(dim=2), sg.VPSDE(), predicts="v", time="c_noise")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for batch in islice(InfiniteBatches(len(data), 512), steps):
        optimizer.zero_grad()
        sg.dsm_loss(model, data.x[batch], times=sg.losses.likelihood_time).mean().backward()
        optimizer.step()
    distances = {}
    for solver in (sg.DPMSolverPP(), sg.Heun(), sg.EulerMaruyama()):
        x = sg.sample(model, (2000, 2), solver=solver, nfe=20, seed=0)
        name = type(solver).__name__
        distances[name] = sliced_wasserstein(x, fresh.x)
        save_samples(x, f"{folder}/checkerboard-{name}.png", f"{name}, 20 NFE")
    return distances


if __name__ == "__main__":
    print(main())
