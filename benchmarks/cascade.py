"""A cascade of captioned digits, 8 x 8 and then 16 x 16, beside one model of 16 x 16.

    python benchmarks/cascade.py --small outputs/small --upsample outputs/text/upsample \\
        --single outputs/text/captioned_digits
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import captioned_digits
from sdegen.files import write_json
from sdegen.guidance import CFG, Average
from sdegen.metrics import DigitJudge, sliced_wasserstein, words_right
from sdegen.runs.folder import Run, load_run
from sdegen.runs.telling import Prompts
from sdegen.sampling import Stage, cascade
from sdegen.text import NO_TEXT

LEVELS = (0.0, 0.1, 0.2, 0.4)


def main(
    small: str, upsample: str, single: str, out: str, n: int, steps: int, scale: float
) -> None:
    """Shares of right words, the distance to real pictures, and how well small ones are kept."""
    runs = small, upsample, single
    one, two, whole = (load_run(Path(each), [], "cpu", "averaged") for each in runs)
    data = captioned_digits("test", whole.shape[-1])
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    picks, others = order[:n], order[n : 2 * n]
    asked = [data.captions[i] for i in picks.tolist()]
    judge, real = DigitJudge(whole.shape[-1]), data.x[picks]
    rows: list[dict[str, Any]] = []

    def add(name: str, x: Tensor, **more: Any) -> None:
        w2 = sliced_wasserstein(x.flatten(1), real.flatten(1))
        rows.append({"name": name, **more, "sliced": float(w2), **words_right(judge(x), asked)})
        print(rows[-1], flush=True)

    floor = sliced_wasserstein(data.x[others].flatten(1), real.flatten(1))
    rows.append({"name": "other real pictures", "sliced": float(floor)})
    how = {"nfe": 2 * steps}
    add("one model", sg.sample(told(whole, asked, scale), (n, *whole.shape), seed=0, **how), **how)
    A, last = Average(2), steps if two.text is None else 2 * steps
    for level in LEVELS:
        first = Stage(told(one, asked, scale), one.shape, how)
        second = Stage(told(two, asked, scale), two.shape, {"nfe": last}, A.pinv, level)
        made = [each.x for each in cascade([first, second], n, seed=0)]
        off = float((A(made[1]) - made[0]).square().mean().sqrt())
        add("cascade", made[1], level=level, nfe=[2 * steps, last], rms=off)
    seen = A(real)
    shown = told(two, asked, scale).given(c=A.pinv(seen), augment=torch.tensor(0.0))
    x = sg.sample(shown, (n, *two.shape), nfe=last, seed=0)
    off = float((A(x) - seen).square().mean().sqrt())
    add("real small pictures", x, level=0.0, nfe=last, rms=off)
    about = {"n": n, "steps": steps, "scale": scale, "hardware": f"{platform.machine()}, CPU"}
    write_json(Path(out), {**about, "torch": torch.__version__, "rows": rows})


def told(run: Run, asked: list[str], scale: float) -> Any:
    """A run's model of captions, guided; as it is where it takes none."""
    if run.text is None:
        return run.model
    return CFG(Prompts.of(run.text, asked).given(run.model, len(asked)), scale, without=NO_TEXT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("small", "upsample", "single"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--out", default="benchmarks/cascade.json")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--scale", type=float, default=3.0)
    main(**vars(parser.parse_args()))
