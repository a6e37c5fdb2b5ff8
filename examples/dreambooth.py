"""DreamBooth: a class of five pictures more, and the others as they were.  Ruiz et al. (2023).

    sdegen-train
    python examples/dreambooth.py outputs/dreambooth [--quick]

Takes the run beside its folder, outputs/digits, or trains a model of digits where there is none.
A class more than it knows is learned of five pictures of a letter, once of these alone and once of
these and samples that the model itself made before: a data set of two, no other loss.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import ArrayData, Mixed, digits
from sdegen.losses import EDMWeighting, LogNormalTime, low_discrepancy
from sdegen.metrics import ImageClassifier, fit_classifier, frechet_distance
from sdegen.networks import UNet, with_classes
from sdegen.plots import save_samples
from sdegen.training import Trainer, TrainSettings

NEW, LETTER, SEEN = 10, "W", 5
STEPS, SAMPLES = 200, 1000


def letters(n: int, seed: int) -> Tensor:
    """A letter (n, 1, 8, 8) in [-1, 1], each somewhat turned and moved."""
    from PIL import Image, ImageDraw, ImageFont

    draws, found = torch.Generator().manual_seed(seed), []
    for turn, right, down in (torch.rand(n, 3, generator=draws) * 2 - 1).tolist():
        page = Image.new("L", (64, 64))
        where = (32 + 4 * right, 32 + 4 * down)
        font = ImageFont.load_default(52)
        ImageDraw.Draw(page).text(where, LETTER, 255, font, anchor="mm", stroke_width=2)
        page = page.rotate(12 * turn, Image.Resampling.BICUBIC)
        small = torch.tensor(list(page.get_flattened_data())).reshape(1, 8, 8, 8, 8)
        found.append((small.float().mean((2, 4)) / 127.5 - 1).clamp(-1, 1))
    return torch.stack(found)


def base_of(folder: Path, quick: bool) -> sg.ScoreModel:
    """The model of digits that is beside the folder, or one that is trained now."""
    beside = folder.parent / "digits"
    if (beside / "model.safetensors").is_file() and not quick:
        return sg.load(beside)
    net = UNet(1, 8 if quick else 32, classes=10)
    model = sg.ScoreModel(net, sg.VPSDE(), "edm", sigma_data=float(digits().x.std()))
    return trained(model, digits(), 20 if quick else 900, 2e-3)


def trained(model: sg.ScoreModel, data: ArrayData | Mixed, steps: int, lr: float) -> sg.ScoreModel:
    """A model after some steps on data with labels, by the loss that it began with."""
    loss = partial(
        sg.dsm_loss,
        weighting=EDMWeighting(float(digits().x.std())),
        times=LogNormalTime(-1.2, 1.2),
        draw=low_discrepancy,
    )
    settings = TrainSettings(steps=steps, batch_size=64, warmup=20, ema=0.98, device="cpu")
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


def judged(model: sg.ScoreModel, judge: ImageClassifier, before: Tensor, y: Tensor, seed: int):  # type: ignore[no-untyped-def]
    """How often the new class is one, and how far the others have gone from what they were."""
    new = drawn(model, torch.full((200,), NEW), seed)
    right = float((judge(new).argmax(1) == NEW).float().mean())
    after = drawn(model, y, seed)
    return right, frechet_distance(judge.features(after), judge.features(before)), new, after


def main(folder: str, quick: bool = False) -> dict[str, float]:
    """Learn the letter twice, and write what came of it into the folder."""
    torch.manual_seed(0)
    place, (steps, n) = Path(folder), (3, 100) if quick else (STEPS, SAMPLES)
    place.mkdir(parents=True, exist_ok=True)
    base = base_of(place, quick).eval()
    data, many = digits("all"), letters(180, 1)
    x, y = torch.cat([data.x, many]), torch.cat([data.y, torch.full((len(many),), NEW)])
    judge = fit_classifier(x, y, 20 if quick else 600)
    old = torch.arange(n) % NEW
    before, rows = drawn(base, old, 1), [letters(SEEN, 0)]
    floor = frechet_distance(judge.features(drawn(base, old, 2)), judge.features(before))
    few = ArrayData(letters(SEEN, 0), torch.full((SEEN,), NEW), names=[*"0123456789", LETTER])
    made = torch.arange(200) % NEW
    prior = ArrayData(drawn(base, made, 3), made, names=few.names)
    figures: dict[str, float] = {"floor": floor}
    for name, shares in {"alone": (1, 0), "with the prior": (1, 1)}.items():
        torch.manual_seed(0)
        wider = sg.ScoreModel(
            with_classes(base.net), base.sde, base.predicts, sigma_data=float(digits().x.std())
        )
        model = trained(wider, Mixed([few, prior], shares), steps, 5e-4)
        right, drift, new, after = judged(model, judge, before, old, 2)
        figures |= {f"right, {name}": right, f"drift, {name}": drift}
        rows += [new[:5], after[:10]]
        print(name, right, drift, flush=True)
    save_samples(
        torch.cat([rows[0], rows[1], before[:10], rows[2], rows[3], rows[4]]),
        place / "picture.png",
        "x",
        columns=10,
    )
    return figures


if __name__ == "__main__":
    print(main(sys.argv[1], "--quick" in sys.argv))
