"""Markup to images, with and without scheduled sampling.  Deng et al. (2023).

    python examples/markup.py outputs/markup [--quick]

Strings such as "x^2_a+" are drawn; a transformer is told them as tokens that its patches attend
to. It is trained as ever, and from there on twice: as before, and on states that it has made
itself. Strings that it never saw are then drawn by it, and read.
"""

from __future__ import annotations

import copy
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import ArrayData, drawn_markup, markup, markup_tokens, read_markup
from sdegen.data.typeset import TOKENS
from sdegen.files import write_json
from sdegen.losses import EDMWeighting, LogNormalTime, exposed, low_discrepancy
from sdegen.networks import Transformer
from sdegen.plots import save_samples
from sdegen.training import Trainer, TrainSettings

CALLS = (5, 10, 20)


def trained(model: Any, data: ArrayData, loss: Any, folder: Path, steps: int, rate: float) -> Any:
    """A model after so many steps on pictures and their tokens, with averaged weights."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = TrainSettings(steps, 64, warmup=steps // 10, schedule="cosine", ema=0.995,
                             device="cpu", log_every=steps, save_every=steps)  # fmt: skip
    tokens = markup_tokens(data.captions)
    items = [(x, {"tokens": each}) for x, each in zip(data.x, tokens, strict=True)]
    optimizer = partial(torch.optim.AdamW, lr=rate)
    trainer = Trainer(model, items, loss, optimizer, settings, folder, conditional=True)
    for record in trainer.steps():
        print(f"{folder.name}: step {record.step}, loss {record.loss:.4f}", flush=True)
    return trainer.averaged


@torch.no_grad()
def drawn(model: Any, captions: list[str], calls: int) -> Tensor:
    """Pictures of strings."""
    told = model.given(tokens=markup_tokens(captions))
    x: Tensor = sg.sample(told, (len(captions), 1, 16, 32), nfe=calls, seed=0)
    return x


def right(x: Tensor, captions: list[str]) -> float:
    """The share of pictures that say just what they should."""
    return sum(map(str.__eq__, read_markup(x), captions)) / len(captions)


def main(folder: str, quick: bool = False, seed: int = 0) -> dict[str, Any]:
    """Train, draw, read."""
    torch.manual_seed(seed)
    n, steps, count = (200, 6, 16) if quick else (20_000, 1600, 400)
    data, test = markup(n), markup(2 * count, seed=1)
    fresh = [c for c in dict.fromkeys(test.captions) if c not in set(data.captions)][:count]
    net = Transformer(1, 128, 3, 4, patch=8, token_width=128, words=len(TOKENS), length=8)
    std = float(data.x.std())
    model = sg.ScoreModel(net, sg.EDMSDE(T=20.0), "edm", sigma_data=std)
    how = {"weighting": EDMWeighting(std), "times": LogNormalTime(-0.6), "draw": low_discrepancy}
    plain = partial(sg.dsm_loss, **how)
    start = trained(model, data, plain, Path(folder, "start"), steps, 2e-3)
    losses = {"without": plain, "with": partial(exposed, p=0.5, gap=0.5, **how)}
    figures, shown = [], [drawn_markup(fresh[:8])]
    for name, loss in losses.items():
        fork = copy.deepcopy(start).train().requires_grad_(True)
        model = trained(fork, data, loss, Path(folder, name), steps // 2, 1e-3)
        for calls in CALLS:
            x = drawn(model, fresh, calls)
            figures.append({
                "what": f"{name} scheduled sampling, {calls} calls: strings read right",
                "value": right(x, fresh), "beside": right(drawn_markup(fresh), fresh),
                "of": "their true pictures", "wished": ">= 0.8" if calls == CALLS[-1] else "",
            })  # fmt: skip
            print(figures[-1])
        shown.append(x[:8])
    save_samples(torch.cat(shown), f"{folder}/picture.png", "true; drawn without, and with", 8)
    config = {"steps": steps, "strings": n, "drawn": count, "seed": seed}
    write_json(Path(folder) / "result.json", {"config": config, "figures": figures})
    return {"config": config, "figures": figures}


if __name__ == "__main__":
    main(sys.argv[1], "--quick" in sys.argv)
