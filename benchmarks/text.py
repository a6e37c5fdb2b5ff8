"""Captioned digits: how often samples are what their captions say, by the scale of guidance.

python benchmarks/text.py --run outputs/text/captioned_digits
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

import sdegen as sg
from sdegen.data import captioned_digits
from sdegen.guidance import CFG
from sdegen.metrics import DigitJudge, words_right
from sdegen.runs.folder import load_run
from sdegen.runs.telling import Prompts
from sdegen.text import NO_TEXT


def main(
    run: str,
    out: str = "benchmarks/text.json",
    n: int = 256,
    nfe: int = 20,
    scales: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 5.0),
    weights: str = "finished",
) -> dict[str, Any]:
    """Shares of right words on seen combinations and on those that training never had.

    nfe: network calls at scales 0 and 1; twice as many, for as many steps, elsewhere.
    """
    found = load_run(Path(run), [], "cpu", weights)
    assert found.text is not None
    judge, rows = DigitJudge(found.shape[-1]), []
    for split in ("test", "novel"):
        data = captioned_digits(split, found.shape[-1])
        picks = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:n]
        asked = [data.captions[i] for i in picks.tolist()]
        rows.append({"split": split, "scale": None, **words_right(judge(data.x[picks]), asked)})
        given = Prompts.of(found.text, asked).given(found.model, n)
        for scale in scales:
            guided = CFG(given, scale, without=NO_TEXT)
            x = sg.sample(guided, (n, *found.shape), nfe=nfe * guided.cost, seed=0)
            rows.append({"split": split, "scale": scale, **words_right(judge(x), asked)})
            print(rows[-1], flush=True)
    about = {
        "command": f"python benchmarks/text.py --run {run} --weights {weights}",
        "n": n,
        "nfe": nfe,
        "step": found.step,
        "hardware": f"{platform.machine()}, CPU",
        "torch": torch.__version__,
        "rows": rows,
    }
    Path(out).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return about


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", default="benchmarks/text.json")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--nfe", type=int, default=20)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.0, 1.0, 2.0, 3.0, 5.0])
    parser.add_argument("--weights", default="finished")
    said = parser.parse_args()
    main(said.run, said.out, said.n, said.nfe, tuple(said.scales), said.weights)
