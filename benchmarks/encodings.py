"""Do networks trained apart encode the same picture alike?  Song et al. (2021), sec. 4.3.

    python benchmarks/encodings.py outputs/plain outputs/likely   writes benchmarks/encodings.json

With an exact score the flow's encoding is the data's own: it does not depend on the network. For
every two of the runs, unconditional ones on the digits: the correlation of their encodings of the
same held-out digits, over all dimensions, beside that of different digits'.
"""

from __future__ import annotations

import argparse
import json
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import digits
from sdegen.runs.folder import load_run


def correlation(a: Tensor, b: Tensor) -> float:
    """Of all values of two tensors."""
    a, b = a.flatten() - a.mean(), b.flatten() - b.mean()
    return float((a @ b) / (a.norm() * b.norm()))


def main() -> None:
    """Encode, compare, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("runs", nargs="+", help="folders of finished runs, two or more")
    parse.add_argument("--n", type=int, default=256, help="digits")
    parse.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parse.parse_args()
    test = digits("test").x
    generator = torch.Generator().manual_seed(0)
    x = (test + (torch.rand(test.shape, generator=generator) - 0.5) / 8)[: args.n]  # dequantised
    codes = {}
    for run in args.runs:
        trained = load_run(Path(run), [], "cpu")
        if trained.counts:
            raise SystemExit(f"{run} is conditional: its encodings depend on the label.")
        codes[Path(run).name] = sg.encode(trained.model, x, steps=60)
    rows = []
    for one, other in combinations(codes, 2):
        a, b = codes[one], codes[other]
        rows.append(
            {
                "runs": [one, other],
                "same digit": correlation(a, b),
                "another digit": correlation(a, b.roll(1, 0)),
                "rms difference": float((a - b).square().mean().sqrt()),
            }
        )
        print(rows[-1])
    args.out.write_text(json.dumps({"digits": len(x), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
