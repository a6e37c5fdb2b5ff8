"""Molecules as clouds of points, under a property: how much they like water.

    python examples/molecules.py outputs/molecules [--quick]

FreeSolv's molecules with the energies of hydration that were measured. A cloud has no order and no
orientation, and neither has what the network makes of it. It is told how many atoms there are, and
the energy.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import molecules
from sdegen.data.freesolv import ATOMS, SCALE
from sdegen.files import write_json
from sdegen.guidance import CFG
from sdegen.losses import EDMWeighting, LogNormalTime, dropped, low_discrepancy
from sdegen.networks import EGNN
from sdegen.training import Trainer, TrainSettings

UNKNOWN, UNIT = {"energy": 3.0}, 10.0  # what stands for none; kcal/mol in 1 as it is told
TOLD = {"much": -9.0, "a little": -4.0, "not at all": 2.0}


def of_points(model: Any, x: Tensor, loss: Any) -> Tensor:
    """A loss (b,) of clouds by the points that are there."""
    return loss(model, x, where=model.conditions["there"][:, None])


def counts(x: Tensor, there: Tensor) -> Tensor:
    """How many atoms of each kind clouds have, (b, 9), and 1."""
    kinds = torch.nn.functional.one_hot(x[:, 3:].argmax(1), len(ATOMS)) * there[..., None]
    return torch.cat([kinds.sum(1), torch.ones(len(x), 1)], 1)


def bonded(x: Tensor, there: Tensor) -> float:
    """The share of atoms whose nearest one is 1.1 to 2.0 angstroms away."""
    place = SCALE * x[:, :3].movedim(1, 2)
    apart = torch.cdist(place, place) + 1e9 * (~(there[:, None] & there[..., None]))
    apart = apart + 1e9 * torch.eye(apart.shape[1])
    nearest = apart.amin(2)[there]
    return float(((nearest > 1.1) & (nearest < 2.0)).double().mean())


def main(folder: str, quick: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train, draw under three energies, judge."""
    torch.manual_seed(seed)
    steps, count = (6, 8) if quick else (1500, 200)
    train, test = molecules("train"), molecules("test")
    std = float(train.x.movedim(1, 2)[train.there].std())
    net = EGNN(len(ATOMS), numbers=["energy"])
    model = sg.ScoreModel(net, sg.EDMSDE(T=20.0), "edm", sigma_data=std)
    dsm = partial(sg.dsm_loss, weighting=EDMWeighting(std), times=LogNormalTime(-0.3, 1.4),
                  draw=low_discrepancy)  # fmt: skip
    loss = partial(dropped, loss=partial(of_points, loss=dsm), p=0.1, without=UNKNOWN)
    settings = TrainSettings(steps, 64, schedule="cosine", ema=0.995, device="cpu")
    rate = partial(torch.optim.AdamW, lr=2e-3)
    Path(folder).mkdir(parents=True, exist_ok=True)
    scaled = replace(train, energy=train.energy / UNIT)
    trainer = Trainer(model, scaled, loss, rate, settings, Path(folder), conditional=True)
    print([record.loss for record in trainer.steps()][-1:])
    judge = torch.linalg.lstsq(counts(train.x, train.there), train.energy[:, None]).solution
    said = (counts(test.x, test.there) @ judge)[:, 0]
    r = float(torch.corrcoef(torch.stack([said, test.energy]))[0, 1])
    of = "correlation"
    figures = [{"what": "judge by kinds of atoms: its correlation with what was measured",
                "value": r, "beside": None, "of": of, "wished": ""}]  # fmt: skip
    shown, there = {}, train.there[torch.randint(len(train), (count,))]
    for name, energy in TOLD.items():
        told = trainer.averaged.given(there=there, energy=torch.full((count,), energy / UNIT))
        with torch.no_grad():
            x = sg.sample(CFG(told, 1.5, without=UNKNOWN), (count, *train.x.shape[1:]), nfe=60,
                          seed=0) * there[:, None]  # fmt: skip
        found = float((counts(x, there) @ judge).mean())
        figures += [
            {"what": f"told {energy:g} kcal/mol: mean energy by the judge", "value": found,
             "beside": energy, "of": "told", "wished": ""},
            {"what": f"told {energy:g} kcal/mol: atoms at a bond's length from another",
             "value": bonded(x, there), "beside": bonded(test.x, test.there),
             "of": "of real ones", "wished": ""},
        ]  # fmt: skip
        shown[f"likes water {name}"] = (x, there)
    print(*figures, sep="\n")
    drawing(shown, Path(folder) / "picture.png")
    config = {"steps": steps, "molecules": len(train), "drawn": count, "seed": seed}
    write_json(Path(folder) / "result.json", {"config": config, "figures": figures})
    return {"config": config, "figures": figures}


def drawing(shown: dict[str, tuple[Tensor, Tensor]], path: Path) -> None:
    """Four clouds of each kind, atoms by colour, lines where two are at a bond's length."""
    from matplotlib.figure import Figure

    colours = ("black", "red", "blue", "green", "lime", "gold", "brown", "orange", "purple")
    sheet = Figure((10, 7.5), layout="tight")
    for row, (name, (x, there)) in zip(sheet.subplots(3, 4), shown.items(), strict=True):
        for k, axes in enumerate(row):
            at, kind = SCALE * x[k, :3, there[k]], x[k, 3:, there[k]].argmax(0)
            for i, j in (torch.cdist(at.T, at.T) < 2.0).triu(1).nonzero():
                axes.plot(*at[:2, [i, j]], color="grey", zorder=0)
            axes.scatter(*at[:2], c=[colours[c] for c in kind], s=60)
            axes.set(title=name if k == 0 else "", xticks=[], yticks=[], aspect="equal")
    sheet.savefig(path, dpi=70)


if __name__ == "__main__":
    main(sys.argv[1], "--quick" in sys.argv)
