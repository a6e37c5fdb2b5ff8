"""DreamBooth: a class of five pictures more, and the others as they were.  Ruiz et al. (2023).

    sdegen-train
    python examples/dreambooth.py outputs/dreambooth [--quick]

Takes the run beside its folder, outputs/digits, or trains a model of digits where there is none.
A class more than it knows is learned of five pictures of a letter, once of these alone and once of
these and samples that the model itself made before: a data set of two, no other loss.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import ArrayData, Mixed, digits, letters
from sdegen.files import write_json
from sdegen.losses import EDMWeighting, LogNormalTime, low_discrepancy
from sdegen.metrics import fit_classifier, frechet_distance
from sdegen.networks import UNet, with_classes
from sdegen.plots import save_samples
from sdegen.training import Trainer, TrainSettings

NEW, LETTER, SEEN = 10, "W", 5
STEPS, SAMPLES, SEEDS = 60, 500, 2


def base_of(folder: Path, quick: bool) -> sg.ScoreModel:
    """The model of digits that is beside the folder, or one that is trained now."""
    beside = folder.parent / "digits"
    if (beside / "model.safetensors").is_file() and not quick:
        return sg.load(beside)
    net = UNet(1, 8 if quick else 32, classes=10)
    model = sg.ScoreModel(net, sg.VPSDE(), "edm", sigma_data=float(digits().x.std()))
    return trained(model, digits(), 20 if quick else 900, 2e-3)


def trained(
    model: sg.ScoreModel, data: ArrayData | Mixed, steps: int, lr: float, seed: int = 0
) -> sg.ScoreModel:
    """A model after some steps on data with labels, by the loss that it began with."""
    loss = partial(
        sg.dsm_loss,
        weighting=EDMWeighting(float(digits().x.std())),
        times=LogNormalTime(-1.2, 1.2),
        draw=low_discrepancy,
    )
    settings = TrainSettings(steps=steps, batch_size=64, warmup=20, ema=0.98, seed=seed)
    optimizer = partial(torch.optim.AdamW, lr=lr)
    with TemporaryDirectory() as folder:
        place = Path(folder)
        trainer = Trainer(model, data, loss, optimizer, settings, place, conditional=True)
        list(trainer.steps())
        found: sg.ScoreModel = trainer.averaged
    return found


def drawn(model: sg.ScoreModel, y: Tensor, seed: int) -> Tensor:
    """Samples (n, 1, 8, 8) of classes (n,)."""
    return sg.sample(model.given(y=y), (len(y), 1, 8, 8), nfe=20, seed=seed)


def main(folder: str, quick: bool = False) -> dict[str, float]:
    """Learn the letter twice, of two seeds; figures and a picture into the folder."""
    place, (steps, n) = Path(folder), (3, 100) if quick else (STEPS, SAMPLES)
    place.mkdir(parents=True, exist_ok=True)
    base, data, many = base_of(place, quick).eval(), digits("all"), letters(180, LETTER, 1).x
    x, y = torch.cat([data.x, many]), torch.cat([data.y, torch.full((len(many),), NEW)])
    judge = fit_classifier(x, y, 20 if quick else 600)
    old, few = torch.arange(n) % NEW, letters(SEEN, LETTER, 0)
    before = drawn(base, old, 1)
    features = judge.features(before)
    figures = {"floor": frechet_distance(judge.features(drawn(base, old, 2)), features)}
    made = torch.arange(200) % NEW
    prior = ArrayData(drawn(base, made, 3), made, few.levels, few.names)
    rows, seeds = [torch.cat([few.x, before[:5]]), before[:10]], 1 if quick else SEEDS
    for name, shares in {"alone": (1, 0), "with the prior": (1, 1)}.items():
        found = []
        for seed in range(seeds):
            torch.manual_seed(seed)
            model = deepcopy(base)
            model.net = with_classes(model.net)  # type: ignore[arg-type]
            model = trained(model, Mixed([few, prior], shares), steps, 5e-4, seed)
            new, after = drawn(model, torch.full((200,), NEW), seed), drawn(model, old, 4 + seed)
            right = float((judge(new).argmax(1) == NEW).float().mean())
            found.append((right, frechet_distance(judge.features(after), features)))
            rows += [new[:10], after[:10]] if not seed else []
        right, drift = (sum(each) / seeds for each in zip(*found, strict=True))
        figures |= {f"right, {name}": right, f"drift, {name}": drift}
    title = (
        f"Five pictures, and what the model made; then {LETTER} and digits, alone; with the prior"
    )
    save_samples(torch.cat(rows), place / "picture.png", title, columns=10)
    write_json(
        place / "result.json",
        {"config": {"steps": steps, "samples": n, "seeds": seeds}, "figures": told(figures)},
    )
    print(figures)
    return figures


def told(figures: dict[str, float]) -> list[dict[str, Any]]:
    """Figures as a page of the gallery has them."""
    rows = []
    for name in ("alone", "with the prior"):
        rows.append((f"new class judged right, {name}", figures[f"right, {name}"], None, ""))
    alone, prior, floor = (figures[k] for k in ("drift, alone", "drift, with the prior", "floor"))
    rows.append(
        ("Frechet distance of the others from what they were, alone", alone, floor, "floor")
    )
    rows.append(("the same, with the prior", prior, alone, "alone"))
    wished = ("at least 0.9", "at least 0.9", "", "at most half of alone")
    names = ("what", "value", "beside", "of", "wished")
    return [dict(zip(names, (*r, w), strict=True)) for r, w in zip(rows, wished, strict=True)]


if __name__ == "__main__":
    main(sys.argv[1], "--quick" in sys.argv)
