"""Captioned digits of another colour: what an edit changes, and what it leaves.

python benchmarks/editing.py --run outputs/text/captioned_digits    writes benchmarks/editing.json
                                                        and the picture docs/editing.png

Captions of held-out pictures, their colour replaced by the next one. Samples of both captions from
one noise, and the pictures themselves; a judge says what is in them (DigitJudge).
"""

from __future__ import annotations

import argparse
import json
import platform
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import captioned_digits
from sdegen.data.captions import COLOURS
from sdegen.editing import (
    Paired,
    PromptToPrompt,
    changed_where,
    direct_inversion,
    replacement,
    translate,
)
from sdegen.editing.pairs import both
from sdegen.guidance import CFG
from sdegen.metrics import DigitJudge, words_right
from sdegen.plots import save_trajectory
from sdegen.runs.folder import load_run
from sdegen.runs.telling import Prompts
from sdegen.text import NO_TEXT

INK = 0.3
"""A pixel has ink where its largest channel, in [0, 1], is above."""


def recoloured(caption: str) -> str:
    """A caption with the next colour in the place of its own."""
    size, colour, *rest = caption.split()
    names = list(COLOURS)
    return " ".join([size, names[(names.index(colour) + 1) % len(names)], *rest])


def overlap(x: Tensor, y: Tensor) -> float:
    """The mean over pictures of inked pixels in both over those in either."""
    one, two = ((each + 1).amax(1) / 2 > INK for each in (x, y))
    shared, either = ((a).flatten(1).sum(1).double() for a in (one & two, one | two))
    return float((shared / either.clamp(min=1)).mean())


def row(judge: DigitJudge, name: str, x: Tensor, source: Tensor, asked: list[str]) -> Any:
    """What an edit x of pictures has changed and left."""
    found, before = ([c.split() for c in judge(each)] for each in (x, source))
    parts = {"size": slice(0, 1), "digit": slice(2, 3), "place": slice(3, 5)}

    def share(part: slice, of: list[list[str]]) -> float:
        return sum(a[part] == b[part] for a, b in zip(found, of, strict=True)) / len(x)

    kept = {f"{k} kept": share(part, before) for k, part in parts.items()}
    colour = share(slice(1, 2), [c.split() for c in asked])
    made = {"edit": name, "colour right": colour, **kept, "overlap": overlap(x, source)}
    print({k: v if isinstance(v, str) else round(v, 3) for k, v in made.items()}, flush=True)
    return made


def main(
    run: str,
    out: str = "benchmarks/editing.json",
    docs: str | None = "docs",
    n: int = 100,
    steps: int = 10,
    scale: float = 3.0,
) -> dict[str, Any]:
    """Figures, and a picture of six pictures where ``docs`` is a folder."""
    found = load_run(Path(run), [], "cpu")
    assert found.text is not None
    judge = DigitJudge(found.shape[-1])
    data = captioned_digits("test", found.shape[-1])
    picks = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:n]
    x0 = data.x[picks]
    asked = [data.captions[i] for i in picks.tolist()]
    to = [recoloured(caption) for caption in asked]
    one, two = (Prompts.of(found.text, c).given(found.model, n) for c in (asked, to))
    guide = partial(CFG, scale=scale, without=NO_TEXT)
    W = replacement(asked[0], to[0])  # all captions have as many words
    rows, how = list[Any](), {"solver": sg.DPMSolverPP(2), "steps": steps}
    tell = partial(row, judge)

    z = torch.randn((n, *found.shape), generator=torch.Generator().manual_seed(1))
    source = sg.sample(guide(one), z, **how)
    rows.append(tell("samples of the first caption", source, source, asked))
    rows.append(tell("samples of the other caption", sg.sample(guide(two), z, **how), source, to))
    edits = {}
    for until, until_self in ((0.5, None), (2.0, None), (2.0, 0.0)):
        pair = Paired(guide(one), guide(two), maps=PromptToPrompt(W, None, until, until_self))
        x = sg.sample(pair, both(z), **how)
        assert torch.equal(x[:, 0], source)
        name = f"Prompt-to-Prompt, until {until:g}, of places {until_self}"
        rows.append(tell(name, x[:, 1], source, to))
        edits[until, until_self] = x[:, 1]

    twice = {"solver": sg.DPMSolverPP(2), "steps": 2 * steps}
    rows.append(tell("pictures", x0, x0, asked))
    back, free = (each.float() for each in translate(one, guide(two), x0, **twice))
    rows.append(tell("encoded and decoded", back, x0, asked))
    rows.append(tell("decoded under the other caption", free, x0, to))
    for threshold in (0.5, 0.25):
        mask = changed_where(one, two, x0, rho=1.0, threshold=threshold)
        edited = translate(one, guide(two), x0, mask=mask, **twice)[1].float()
        rows.append(tell(f"DiffEdit, threshold {threshold:g}", edited, x0, to))
    pair = Paired(guide(one), guide(two), maps=PromptToPrompt(W, None, 2.0, 0.0))
    direct = direct_inversion(one, pair, x0, **twice)[1].float()
    rows.append(tell("direct inversion and Prompt-to-Prompt", direct, x0, to))
    if docs is not None:
        shown = {
            "sample": source,
            "other caption": sg.sample(guide(two), z, **how),
            "P2P": edits[2.0, 0.0],
            "picture": x0,
            "DiffEdit": edited,
            "direct, P2P": direct,
        }
        states = torch.stack([each[:6].clamp(-1, 1) for each in shown.values()])
        save_trajectory(states, list(shown), Path(docs) / "editing.png")
    about = {
        "command": f"python benchmarks/editing.py --run {run}",
        "n": n,
        "steps": steps,
        "scale": scale,
        "captions": [[a, b] for a, b in zip(asked[:6], to[:6], strict=True)],
        "step": found.step,
        "captions right": words_right(judge(source), asked),
        "rows": rows,
        "hardware": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    Path(out).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return about


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", default="benchmarks/editing.json")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--scale", type=float, default=3.0)
    said = parser.parse_args()
    main(said.run, said.out, "docs", said.n, said.steps, said.scale)
