"""LoRA: bold digits learned by few weights beside a model of thin ones.  Hu et al. (2022).

    sdegen-train
    python examples/lora.py outputs/lora [--quick]

Takes the run beside its folder, outputs/digits, or trains a model where there is none, and goes on
from it twice: with adapters, whose base stays as it is, and with all of its weights.
"""

from __future__ import annotations

import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import sdegen as sg
from sdegen.data import ArrayData, bold_digits, digits
from sdegen.files import write_json
from sdegen.losses import EDMWeighting, LogNormalTime, low_discrepancy
from sdegen.metrics.quality import Quality
from sdegen.networks import UNet, lora
from sdegen.plots import save_samples
from sdegen.training import Trainer, TrainSettings

SIGMA = float(digits().x.std())
RANK, STEPS, SEEDS = 7, 300, 2


def trained(
    model: sg.ScoreModel, data: ArrayData, steps: int, lr: float, seed: int = 0
) -> sg.ScoreModel:
    """A model of digits after some more steps, of what takes gradients in it alone."""
    loss = partial(
        sg.dsm_loss,
        weighting=EDMWeighting(SIGMA),
        times=LogNormalTime(-1.2, 1.2),
        draw=low_discrepancy,
    )
    settings = TrainSettings(
        steps=steps, batch_size=64, warmup=20, ema=0.98, seed=seed, device="cpu"
    )
    adam = partial(torch.optim.AdamW, lr=lr)
    with TemporaryDirectory() as folder:
        trainer = Trainer(model, data, loss, adam, settings, Path(folder), conditional=True)
        list(trainer.steps())
        found: sg.ScoreModel = trainer.averaged
    return found


def base_of(folder: Path, quick: bool) -> sg.ScoreModel:
    """The model of digits that is beside the folder, or one that is trained now."""
    beside = folder.parent / "digits"
    if (beside / "model.safetensors").is_file() and not quick:
        return sg.load(beside)
    net = UNet(1, 8 if quick else 32, classes=10)
    model = sg.ScoreModel(net, sg.VPSDE(), "edm", sigma_data=SIGMA)
    return trained(model, digits(), 2 if quick else 900, 2e-3)


def main(folder: str, quick: bool = False) -> dict[str, float]:
    """Both, of two seeds; means, a picture and what is wished, into the folder."""
    place, steps = Path(folder), 2 if quick else STEPS
    place.mkdir(parents=True, exist_ok=True)
    test, base = bold_digits("test"), base_of(place, quick)
    n = 30 if quick else len(test)
    quality = Quality(bold_digits(), test, most=60 if quick else 2000)
    whole = sum(weight.numel() for weight in base.parameters())

    def judged(model: sg.ScoreModel, seed: int) -> tuple[float, torch.Tensor]:
        x = sg.sample(model.given(y=test.y[:n]), (n, 1, 8, 8), nfe=20, seed=seed)
        return quality.distances(x)[0] or 0.0, x

    share, distances = 0.0, dict[str, list[float]]()
    rows = [test.x[:10], judged(base, 0)[1][:10]]
    for seed in range(1 if quick else SEEDS):
        for name, lr in {"adapters": 5e-3, "all weights": 1e-3}.items():
            torch.manual_seed(seed)
            model = deepcopy(base)
            if name == "adapters":
                lora(model.net, RANK)
                own = sum(w.numel() for w in model.parameters() if w.requires_grad)
                share = own / whole
            found, x = judged(trained(model, bold_digits(), steps, lr, seed), seed)
            distances.setdefault(name, []).append(found)
            rows += [x[:10]] if not seed else []
    figures = {name: sum(each) / len(each) for name, each in distances.items()}
    figures |= {"share": share, "before": judged(base, 0)[0], "floor": quality.floor(n).frechet}
    title = "Bold digits; the base; with adapters; with all weights"
    save_samples(torch.cat(rows), place / "picture.png", title, columns=10)
    told = [
        ("weights that train, of all", share, None, "", "at most 0.12"),
        (
            "Frechet distance with adapters",
            figures["adapters"],
            figures["all weights"],
            "all weights trained",
            "within 20 % of it",
        ),
        ("Frechet distance of the base", figures["before"], figures["floor"], "data", ""),
    ]
    names = ("what", "value", "beside", "of", "wished")
    config = {"rank": RANK, "steps": steps, "seeds": distances, "samples": n}
    result = {
        "config": config,
        "figures": [dict(zip(names, each, strict=True)) for each in told],
    }
    write_json(place / "result.json", result)
    print(figures)
    return figures


if __name__ == "__main__":
    main(sys.argv[1], "--quick" in sys.argv)
