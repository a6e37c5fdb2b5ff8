"""Decision Diffuser: plans under a return, and what an agent makes of them.  Ajay et al. (2023).

    python examples/decision_diffuser.py outputs/decision_diffuser [--quick]

A maze and 4,000 ways through it, most of them detours. A plan is a series of places and speeds,
drawn with its first and last place known and guided to the largest return. Actions are what an
inverse dynamics f(s, s') says, and an agent that cannot pass walls takes them. The same planner is
in linear_plans.py, where plans have a law in closed form.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.data import ArrayData, MazePlans, maze_plans
from sdegen.data.mazes import actions, states
from sdegen.files import write_json
from sdegen.guidance import CFG, Known
from sdegen.losses import EDMWeighting, LogNormalTime, dropped, low_discrepancy
from sdegen.networks import MLP, UNet
from sdegen.noise import Inflated, Seeded
from sdegen.training import Trainer, TrainSettings

NOBODY, TOP = {"returns": -1.0}, "the data's 90th percentile"  # no return at all is -1
KINDS = {"no return": (0.0, 0.5), "largest return": (1.0, 0.5), "guided": (2.5, 0.5),
         "guided, not cold": (2.5, 1.0)}  # fmt: skip
"""How plans are drawn: how far they are guided, and with how much of the noise."""


def fit(model: Any, data: Any, loss: Any, folder: Path, steps: int, batch: int = 64) -> Any:
    """A model, or a network, after its training: the average of its weights."""
    settings = TrainSettings(steps, batch, schedule="cosine", ema=0.995, device="cpu")
    rate = partial(torch.optim.AdamW, lr=2e-3)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        model, data, loss, rate, settings, folder, conditional=isinstance(data, list)
    )
    print(folder.name, [record.loss for record in trainer.steps()][-1:], flush=True)
    return trainer.averaged


def planner(net: Any, x: Tensor, returns: Tensor, known: Tensor, folder: Path, steps: int) -> Any:
    """A model of plans x (n, *) under what is known of them, and their returns (n,) or none."""
    std = float(x.std())
    dsm = partial(sg.dsm_loss, weighting=EDMWeighting(std), times=LogNormalTime(-0.8),
                  draw=low_discrepancy)  # fmt: skip
    loss = partial(dropped, loss=dsm, p=0.25, without=NOBODY)
    model = sg.ScoreModel(net, sg.EDMSDE(T=10.0), "edm", sigma_data=std)
    told = torch.where(known, x, 0)
    items = [(x[k], {"returns": returns[k], "c": told[k]}) for k in range(len(x))]
    return fit(model, items, loss, folder, steps)


def drawn(model: Any, best: float, y: Tensor, known: Tensor, scale: float, cold: float) -> Tensor:
    """Plans (b, *) of a return, y where it is known, with ``cold`` times the noise."""
    told = model.given(returns=torch.full((len(y),), best), c=torch.where(known, y, 0))
    guided = CFG(told, scale, without=NOBODY)
    walk = sg.walks.ancestral(model.sde, sg.walks.karras(model.sde, 40, stop=0.01))
    z = torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    start, noise = cold * model.sde.prior.sample(z), Inflated(cold, Seeded(0))
    held = Known(guided, y, known)
    return sg.sample(held, start, solver=sg.DDIM(), walk=walk, noise=noise, denoise=True)


class Inverse(nn.Module):
    """f(s, s') = a, of states (b, 4) and what they become; told of the change, in its own size."""

    def __init__(self, pairs: Tensor) -> None:
        super().__init__()
        self.net = MLP(8, 128, 2, out=2)
        self.register_buffer("size", pairs[:, 4:8].std(0))
        self.register_buffer("unit", pairs[:, 8:].std(0))

    def forward(self, s: Tensor, then: Tensor) -> Tensor:
        seen = torch.cat([s, (then - s) / self.size], 1)
        return self.net(seen, s.new_zeros(len(s))) * self.unit

    def loss(self, pairs: Tensor) -> Tensor:
        """Squared errors (b,) of rows (b, 10), in units of a."""
        s, change, a = pairs.split([4, 4, 2], 1)
        return ((self(s, s + change) - a) / self.unit).square().sum(1)


def pairs_of(x: Tensor) -> Tensor:
    """Rows s, s' - s, a (n, 10) of plans (b, 4, horizon)."""
    rows = torch.cat([x[..., :-1], x.diff(dim=2), actions(x)], 1)
    return rows.movedim(1, 2).flatten(0, 1)


def main(folder: str, quick: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train both networks, draw plans, walk them."""
    n, steps, count = (400, 20, 8) if quick else (4000, 750, 200)
    torch.manual_seed(seed)
    data, cut = maze_plans(n), n // 10
    x, known = states(data.x), torch.zeros(4, data.x.shape[2], dtype=torch.bool)
    known[:, 0] = known[:2, -1] = True
    net = UNet(4, 32, (1, 2, 2), attention=(), numbers=["returns"], beside=4, dims=1)
    model = planner(net, x[cut:], data.returns[cut:], known, Path(folder, "plans"), steps)
    test, pairs = pairs_of(x[:cut]), pairs_of(x[cut:])
    inverse = fit(Inverse(pairs), ArrayData(pairs), Inverse.loss, Path(folder, "inv"), steps, 512)
    about = (test[:, 8:] / inverse.unit).var(0, correction=0).sum()
    r2 = 1 - float(inverse.loss(test).detach().mean() / about)
    figures = [figure("inverse dynamics: R^2 of held-out steps", r2, wished=">= 0.99")]
    y = x[torch.arange(count) % cut]  # beginnings and goals that no plan of the training has
    best, ways = float(data.returns.quantile(0.9)), {"data": data.x[:count]}
    for name, (scale, cold) in KINDS.items():
        with torch.no_grad():
            plan = drawn(model, 1.0, y, known, scale, cold)
            ways[name] = way = data.follow(plan, inverse)
        there = (way[..., -1] - y[:, :2, -1]).norm(dim=1) < 2 / len(data.walls)
        walls, wish = data.blocked(plan[:, :2]).double().mean(), TOP * (name == "guided")
        figures += [
            figure(f"{name}: mean return walked", data.returns_of(way).mean(), best, wish),
            figure(f"{name}: share at the goal", there.double().mean()),
            figure(f"{name}: planned places in walls", walls),
        ]
    drawing(ways, data, Path(folder) / "picture.png")
    made = {"config": {"steps": steps, "drawn": count, "seed": seed}, "figures": figures}
    write_json(Path(folder) / "result.json", made)
    return made


def figure(what: str, value: Any, beside: float | None = None, wished: str = "") -> dict[str, Any]:
    """A row of the gallery; beside it the data's 90th percentile."""
    return {"what": what, "value": float(value), "beside": beside, "of": TOP, "wished": wished}


def drawing(ways: dict[str, Tensor], data: MazePlans, path: Path) -> None:
    """Ways (n, 2, horizon) of each kind in the maze."""
    from matplotlib.figure import Figure

    sheet = Figure((3 * len(ways), 3.4), layout="tight")
    for axes, (name, way) in zip(sheet.subplots(1, len(ways)), ways.items(), strict=True):
        axes.imshow(data.walls.numpy(), cmap="gray_r", alpha=0.6, extent=(-1, 1, 1, -1))
        axes.plot(*way[:40].permute(1, 2, 0).flip(0).numpy(), linewidth=0.6)
        axes.set(title=name, xticks=[], yticks=[])
    sheet.savefig(path, dpi=80)


if __name__ == "__main__":
    main(sys.argv[1], "--quick" in sys.argv)
