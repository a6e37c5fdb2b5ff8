"""Bach's chorales drawn, filled in, and led one into another.  After Mittal et al. (2021).

    python examples/chorales.py outputs/chorales [--quick]

Four voices for four bars, as a roll: a row for each pitch of each voice. A transformer of quarters
learns them, told what is known of a window: some voices, some bars, or nothing. That is held, and
the rest is drawn; and the flow's encodings of two windows are mixed. (The paper's model is of the
latents of a MusicVAE; here there is none.)
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import ArrayData, chorales, notes
from sdegen.data.bach import VOICES
from sdegen.files import write_json
from sdegen.guidance import Known
from sdegen.likelihood import slerp
from sdegen.losses import EDMWeighting, LogNormalTime, low_discrepancy
from sdegen.networks import Transformer
from sdegen.plots import save_samples
from sdegen.training import Trainer, TrainSettings

MAJOR = torch.tensor([0, 2, 4, 5, 7, 9, 11])


def trained(model: Any, data: ArrayData, loss: Any, folder: Path, steps: int) -> Any:
    """The model after training, with averaged weights."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = TrainSettings(steps, 64, warmup=steps // 20, schedule="cosine", ema=0.995,
                             device="cpu", log_every=steps, save_every=steps)  # fmt: skip
    rate = partial(torch.optim.AdamW, lr=2e-3)
    trainer = Trainer(model, data, loss, rate, settings, folder)
    for record in trainer.steps():
        print(f"step {record.step}, loss {record.loss:.4f}", flush=True)
    return trainer.averaged


def seen(x: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """What is told of rolls (n, 117, k) that are known where (n, 4, k) says so, and those rows."""
    sizes = torch.tensor([high - low for low, high in VOICES.values()])
    rows = known.repeat_interleave(sizes, 1)
    return torch.where(rows, x, 0), rows


def of_the_rest(model: Any, x: Tensor, loss: Any) -> Tensor:
    """A loss (b,) of rolls of which some voices, some bars, or nothing is told, a third each."""
    n, k = len(x), x.shape[2] // 16
    voices, bars = torch.rand(n, 4, 1), torch.rand(n, 1, k).repeat_interleave(16, 2)
    each, share = torch.rand(n, 1, 1), torch.rand(n, 1, 1)
    some = torch.where(each < 1 / 3, voices, torch.where(each < 2 / 3, bars, 1.0)) < share
    return loss(model.given(c=seen(x, some.expand(n, 4, 16 * k))[0]), x)


def filled(model: Any, x: Tensor, known: Tensor, draws: int) -> list[Tensor]:
    """Draws of rolls (n, 117, 64) where they are not known, (4, 64)."""
    c, rows = seen(x, known.expand(len(x), -1, -1))
    held, walk = Known(model.given(c=c), x, rows), sg.walks.karras(model.sde, 40, stop=0.01)
    how = {"solver": sg.DDIM(), "walk": walk, "denoise": True}
    return [sg.sample(held, x.shape, seed=seed, **how) for seed in range(draws)]


def in_key(pitches: Tensor) -> float:
    """The share of pitches that C major has."""
    return float(torch.isin(pitches % 12, MAJOR).double().mean())


def alike(x: Tensor, y: Tensor, where: Tensor) -> float:
    """The share of pitches of x where it counts (4, 64) that are y's (n, 4, 64)."""
    return float((x == y)[:, where].double().mean())


def usual_alto(train: Tensor, seen: Tensor) -> Tensor:
    """The alto (n, 64) that was most often between such a soprano and bass, sixteenth by
    sixteenth; the commonest of all where there was none."""
    key = lambda x: x[:, 0] * 128 + x[:, 3]  # noqa: E731
    counts = torch.zeros(128 * 128, 128, dtype=torch.int64)
    alto = train[:, 1].flatten()
    counts.index_put_((key(train).flatten(), alto), torch.ones_like(alto), accumulate=True)
    counts = counts + (counts.sum(0) > counts.sum(0).max() - 1) * (counts.sum(1) == 0)[:, None]
    return counts.argmax(1)[key(seen)]


def main(folder: str, quick: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train, draw, fill in, mix."""
    torch.manual_seed(seed)
    steps, count, draws = (6, 4, 2) if quick else (1200, 64, 4)
    train, test = chorales("train"), chorales("test")
    std = float(train.x.std())
    net = Transformer(train.shape[0], 192, 3, 6, patch=4, dims=1, beside=train.shape[0])
    model = sg.ScoreModel(net, sg.EDMSDE(T=20.0), "edm", sigma_data=std)
    dsm = partial(sg.dsm_loss, weighting=EDMWeighting(std), times=LogNormalTime(-0.3, 1.4),
                  draw=low_discrepancy)  # fmt: skip
    loss = partial(of_the_rest, loss=dsm)
    model = trained(model, train, loss, Path(folder), steps)
    figures: list[dict[str, Any]] = []

    def figure(what: str, value: float, beside: float | None, of: str) -> None:
        row = {"what": what, "value": value, "beside": beside, "of": of, "wished": ""}
        figures.append(row)
        print(row)

    free = lambda x: model.given(c=torch.zeros_like(x))  # noqa: E731
    with torch.no_grad():
        off = [float(dsm(free(x), x, generator=torch.Generator().manual_seed(0)).mean())
               for x in (test.x, train.x[: len(test)])]  # fmt: skip
    figure("loss on pieces held out", off[0], off[1], "on pieces of the training")
    x = test.x[torch.randperm(len(test))[:count]]
    drawn = notes(sg.sample(free(x), x.shape, nfe=40, seed=seed))
    figure("drawn: pitches in key", in_key(drawn), in_key(notes(test.x)), "Bach's, held out")
    y, every = notes(x), notes(train.x)
    alto, inside = torch.zeros(2, len(VOICES), 64, dtype=torch.bool)
    alto[1], inside[:, 16:48] = True, True
    usual = y.clone()
    usual[:, 1] = usual_alto(every, y)
    held = torch.where(inside, y[..., 15:16], y)
    for what, hole, plain, of in (
        ("alto of three voices", alto, usual, "the commonest between such a soprano and bass"),
        ("two bars of four", inside, held, "the pitch before, held"),
    ):
        each = filled(model, x, ~hole, draws)
        made, beside = notes(each[0]), alike(plain, y, hole)
        likeliest = notes(torch.stack(each).mean(0))
        figure(f"{what}: pitches right of a draw", alike(made, y, hole), beside, of)
        figure(f"{what}: of the mean of {draws} draws", alike(likeliest, y, hole), beside, of)
        figure(f"{what}: pitches in key", in_key(made[:, hole]), in_key(y[:, hole]), "Bach's")
    part = free(x[:2])
    z = [sg.encode(part, each, steps=40) for each in (x[:2], x[2:4])]
    between = [notes(sg.decode(part, slerp(*z, w), steps=40)) for w in (0.0, 0.25, 0.5, 0.75)]
    whole = torch.ones_like(alto)
    figure("there and back: pitches right", alike(between[0], y[:2], whole), 1.0, "exact")
    figure("between two: pitches in key", in_key(torch.cat(between[1:])), in_key(y[:4]), "theirs")
    shown = torch.cat([y[:3], made[:3], drawn[:3]]).float() - 60
    save_samples(shown / 12, f"{folder}/picture.png", "Bach; two bars drawn; all drawn", 3)
    config = {"steps": steps, "windows": len(train), "held out": len(test), "seed": seed}
    write_json(Path(folder) / "result.json", {"config": config, "figures": figures})
    return {"config": config, "figures": figures}


if __name__ == "__main__":
    main(sys.argv[1], "--quick" in sys.argv)
