"""Bach's chorales drawn, filled in, and led one into another.  After Mittal et al. (2021).

    python examples/chorales.py outputs/chorales [--quick]

Four voices for four bars, as a roll: a row for each pitch of each voice. A transformer of quarters
learns them; what is known of a window (three voices, or its first and last bar) is held, the rest
drawn; and the flow's encodings of two windows are mixed. (The paper's model is of the latents of a
MusicVAE; here there is none.)
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
from sdegen.data.bach import VOICES, voice_rows
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


def filled(model: Any, x: Tensor, known: Tensor, seed: int = 0) -> Tensor:
    """Rolls (n, 117, 64) drawn anew where they are not known."""
    walk = sg.walks.repaint(model.sde, sg.walks.karras(model.sde, 40, stop=0.01), 4, 4)
    solver, held = sg.DDIM(), Known(model, x, known)
    return sg.sample(held, x.shape, solver=solver, walk=walk, seed=seed, denoise=True)


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
    steps, count = (6, 4) if quick else (1500, 64)
    train, test = chorales("train"), chorales("test")
    std = float(train.x.std())
    net = Transformer(train.shape[0], 192, 3, 6, patch=4, dims=1)
    model = sg.ScoreModel(net, sg.EDMSDE(T=20.0), "edm", sigma_data=std)
    loss = partial(sg.dsm_loss, weighting=EDMWeighting(std), times=LogNormalTime(-0.6),
                   draw=low_discrepancy)  # fmt: skip
    model = trained(model, train, loss, Path(folder), steps)
    figures: list[dict[str, Any]] = []

    def figure(what: str, value: float, beside: float | None, of: str) -> None:
        row = {"what": what, "value": value, "beside": beside, "of": of, "wished": ""}
        figures.append(row)
        print(row)

    with torch.no_grad():
        off = [float(loss(model, x, generator=torch.Generator().manual_seed(0)).mean())
               for x in (test.x, train.x[: len(test)])]  # fmt: skip
    figure("loss on pieces held out", off[0], off[1], "on pieces of the training")
    drawn = notes(sg.sample(model, (count, *train.shape), nfe=40, seed=seed))
    figure("drawn: pitches in key", in_key(drawn), in_key(notes(test.x)), "Bach's, held out")
    x = test.x[torch.randperm(len(test))[:count]]
    y, every = notes(x), notes(train.x)
    known = torch.ones(train.shape, dtype=torch.bool)
    known[voice_rows("alto")] = False
    alto = torch.zeros(len(VOICES), 64, dtype=torch.bool)
    alto[1] = True
    made = notes(filled(model, x, known))
    usual = y.clone()
    usual[:, 1] = usual_alto(every, y)
    figure("alto of three voices: pitches right", alike(made, y, alto), alike(usual, y, alto),
           "the commonest between such a soprano and bass")  # fmt: skip
    bars = torch.zeros(64, dtype=torch.bool)
    bars[16:48] = True
    made = notes(filled(model, x, ~bars.expand(train.shape)))
    inside = bars.expand(len(VOICES), 64)
    held = torch.where(bars, y[..., 15:16], y)
    figure("two bars of four: pitches right", alike(made, y, inside), alike(held, y, inside),
           "the pitch before, held")  # fmt: skip
    figure("two bars of four: pitches in key", in_key(made[:, inside]), in_key(y[:, inside]),
           "Bach's")  # fmt: skip
    ends = x[:2], x[2:4]
    z = [sg.encode(model, each, steps=40) for each in ends]
    between = [notes(sg.decode(model, slerp(*z, w), steps=40)) for w in (0.0, 0.25, 0.5, 0.75)]
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
