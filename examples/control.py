"""ControlNet: a model of digits that is shown what they look like from afar.  Zhang et al. (2023).

    sdegen-train
    python examples/control.py outputs/control [--quick]

Takes the run beside its folder, outputs/digits, or trains a model where there is none, and trains
two controls over it: one is shown means of 2 x 2 pixels, one how steep the picture is. Samples are
held against what was shown, and without a hint against those of the base.
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
from torch.nn import functional as F

import sdegen as sg
from sdegen.data import ArrayData, digits
from sdegen.files import write_json
from sdegen.losses import EDMWeighting, LogNormalTime, low_discrepancy
from sdegen.networks import Controlled, UNet, together
from sdegen.plots import save_samples
from sdegen.training import Trainer, TrainSettings

SIGMA = float(digits().x.std())
STEPS, SEEDS, SAMPLES = 600, 2, 200


def pooled(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, at their places."""
    return F.interpolate(F.avg_pool2d(x, 2), scale_factor=2)


def edges(x: Tensor) -> Tensor:
    """|grad x| by central differences."""
    wide = F.pad(x, (1, 1, 1, 1), mode="replicate")
    right = wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]
    down = wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]
    return (right.square() + down.square()).sqrt() / 2


HINTS = {"shape": pooled, "edges": edges}


def loss(model: Any, x0: Tensor) -> Tensor:
    """Denoising score matching of a model that is shown its hints of x0."""
    net = model.net
    hints = {name: HINTS[name](x0) for name in getattr(net, "controls", ())}
    how = {"weighting": EDMWeighting(SIGMA), "times": LogNormalTime(-1.2, 1.2)}
    return sg.dsm_loss(model.given(**hints), x0, draw=low_discrepancy, **how)


def trained(
    model: sg.ScoreModel, data: ArrayData, steps: int, lr: float, seed: int = 0
) -> sg.ScoreModel:
    """A model of digits after some steps, of what takes gradients in it alone."""
    settings = TrainSettings(steps=steps, batch_size=32, warmup=50, ema=0.99, seed=seed)
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
    return trained(model, digits(), 2 if quick else 1800, 2e-3)


def main(folder: str, quick: bool = False) -> dict[str, float]:
    """Train both controls, of two seeds the first; figures and a picture into the folder."""
    place, steps, n = Path(folder), 2 if quick else STEPS, 10 if quick else SAMPLES
    place.mkdir(parents=True, exist_ok=True)
    test, base = digits("test"), base_of(place, quick).eval()
    x0, y = test.x[:n], test.y[:n]

    def drawn(model: sg.ScoreModel, **told: Any) -> Tensor:
        return sg.sample(model.given(y=y, **told), (n, 1, 8, 8), nfe=20, seed=0)

    def off(x: Tensor, name: str) -> float:
        return float((HINTS[name](x) - HINTS[name](x0)).square().mean())

    plain, ratios, nets = drawn(base), dict[str, list[float]](), dict[str, Controlled]()
    rows = [x0[:10], plain[:10]]
    for seed in range(1 if quick else SEEDS):
        for name in HINTS if not seed else ["shape"]:
            torch.manual_seed(seed)
            model = deepcopy(base)
            model.net = Controlled(model.net, {name: 1})
            model = trained(model, digits(), steps, 1e-3, seed)
            told = drawn(model, **{name: HINTS[name](x0)})
            ratios.setdefault(name, []).append(off(told, name) / off(plain, name))
            if not seed:
                rows.append(told[:10])
                nets[name] = model.net
    unchanged = float(torch.equal(drawn(model), plain))
    model.net = together(*nets.values())
    both = drawn(model, **{name: HINTS[name](x0) for name in nets})
    rows.append(both[:10])
    figures = {f"{name}, alone": sum(r) / len(r) for name, r in ratios.items()}
    figures |= {f"{name}, both": off(both, name) / off(plain, name) for name in nets}
    title = "Digits; the base; shown their means of 2 x 2; shown edges; shown both"
    save_samples(torch.cat(rows), place / "picture.png", title, columns=10)
    told_of = [
        {
            "what": f"error of the hint: {name}",
            "value": value,
            "beside": 1.0,
            "of": "the base, not shown it",
            "wished": "at most 1/3",
        }
        for name, value in figures.items()
    ]
    told_of.append(
        {
            "what": "samples without a hint are the base's, to the bit",
            "value": unchanged,
            "beside": 1.0,
            "of": "exact",
            "wished": "1",
        }
    )
    config = {"steps": steps, "seeds": ratios, "samples": n}
    write_json(place / "result.json", {"config": config, "figures": told_of})
    print(figures, unchanged)
    return {**figures, "unchanged": unchanged}


if __name__ == "__main__":
    main(sys.argv[1], "--quick" in sys.argv)
