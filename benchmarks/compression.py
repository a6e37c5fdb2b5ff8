"""Compression with Gaussian diffusion where all is known: rates, distortions, channels, messages.

    python benchmarks/compression.py             writes benchmarks/compression.json, minutes
    python benchmarks/compression.py --quick --out x.json a look, in seconds
    python benchmarks/compression.py --table     the record as docs/compression.md shows it

Rates and distortions of a Gaussian in eight dimensions, variances 4 to 0.01, beside closed forms,
with points that have its second moments to the bit, 2,048 for rates and 8,192 for distortions;
draws and lengths of one channel by candidates; and messages of a Gaussian in 192 dimensions by the
length of chunks. The photographs are examples/compression.py's.
"""

from __future__ import annotations

import argparse
import math
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import Gaussian, exact_model
from sdegen.files import read_json, write_json
from sdegen.likelihood import compressed, decompressed, even_walk, rate_distortion
from sdegen.likelihood.channel import divergence_bits, picked
from sdegen.likelihood.messages import Message, Zipf

OUT = Path(__file__).with_suffix(".json")
SDES = {"VP": sg.VPSDE(), "sub-VP": sg.SubVPSDE(), "EDM": sg.EDMSDE(), "flow": sg.FlowSDE(T=0.999)}
V = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.25, 0.1, 0.05, 0.01], dtype=torch.float64)
Row = dict[str, Any]


def designed(n: int) -> Tensor:
    """Data (8 n, 8) whose second moments are V: rows of a Hadamard matrix."""
    H = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(3):
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return (H * V.sqrt()).repeat(n, 1)


def rates(n: int, steps: tuple[int, ...]) -> list[Row]:
    """Of whole walks, beside the limit of small steps."""
    rows = []
    for name, sde in SDES.items():
        model, limit = exact_model(Gaussian(torch.zeros(8), V), sde), 0.0
        limit = float(0.5 * torch.log1p((2 * sde(sde.t_min).lam).exp() * V).sum())
        for k in steps:
            (end,) = rate_distortion(model, designed(n), decoders={}, steps=k, points=1)
            rate = float(end.rate.mean())
            rows.append({"sde": name, "steps": k, "rate": rate, "over": rate / limit - 1})
    return rows


def water(snr: Tensor) -> float:
    """Shannon's least distortion at the rate of x_t, by reverse water-filling."""
    rate = 0.5 * torch.log1p(snr * V).sum()
    low, high = torch.zeros(()).double(), V.max()
    for _ in range(80):
        level = (low + high) / 2
        spent = 0.5 * (V / level).log().clamp(min=0).sum()
        low, high = (level, high) if spent > rate else (low, level)
    return float(torch.minimum(V, level).sum())


def distortions(n: int, steps: int) -> list[Row]:
    """Of the three decoders on VP, beside closed forms and Shannon's."""
    sde = SDES["VP"]
    model = exact_model(Gaussian(torch.zeros(8), V), sde)

    def share(level: sg.Level) -> Tensor:
        snr = (2 * level.lam).exp()
        return snr * V / (1 + snr * V)

    *points, end = rate_distortion(model, designed(n), steps=steps, points=5)
    rows, last = [], share(end.level)
    for point in points:
        r = share(point.level)
        exact = {
            "mean": V * (1 - r),
            "ancestral": V * (1 - r) + V * (last - r),
            "flow": V * (1 + last - 2 * (last * r).sqrt()),
        }
        row: Row = {"lam": float(point.level.lam), "bits": float(point.rate.mean() / math.log(2))}
        for name, each in exact.items():
            row[name] = [8 * float(point.mse[name].mean()), float(each.sum())]
        rows.append({**row, "Shannon": water((2 * point.level.lam).exp())})
    return rows


def channels(n: int, extras: tuple[int, ...]) -> list[Row]:
    """N(m, I) beside N(0, I) in four dimensions: what is drawn, and how long its number is."""
    rows, at, one = [], SDES["VP"](0.5), torch.ones(4, dtype=torch.float64)
    for kl in (2.0, 5.0, 8.0):
        mean = math.sqrt(2 * kl * math.log(2) / 4) * one
        for extra in extras:
            found = [picked(mean, one, extra, name="c", seed=i, at=at) for i in range(n)]
            z = torch.stack([each for _, each in found])
            law, message = Zipf(kl), Message()
            bits = sum(law.push(message, k + 1) for k, _ in found) / n
            rows.append(
                {
                    "kl": divergence_bits(mean, one),
                    "extra": extra,
                    "mean": float(z.mean() / mean[0]),
                    "variance": float(z.var(0).mean()),
                    "bits": bits,
                    "bound": kl + math.log2(kl + 1) + 4,
                }
            )
    return rows


def messages(n: int, chunks: tuple[float, ...], extra: int) -> list[Row]:
    """A Gaussian of 192 dimensions, variances 4 / k^1.5, sent for about 90 bits."""
    law = Gaussian(torch.zeros(192), 4 / torch.arange(1, 193).double() ** 1.5)
    x = law.sample(256, torch.Generator().manual_seed(0))
    model, rows = exact_model(law, SDES["VP"]), []
    for chunk in chunks:
        walk = even_walk(model, x, 0.9 * chunk)
        until = round(90 / (0.9 * chunk))
        sent = compressed(model, x[:n], walk=walk, until=until, chunk=chunk, extra=extra)
        back = decompressed(model, sent.data, walk=walk)
        v = torch.as_tensor(law.cov)
        rows.append(
            {
                "chunk": chunk,
                "steps": until,
                "kl": float(sent.kl.mean()),
                "bits": float(sent.bits.mean()),
                "head, bytes a file": sent.head,
                "distortion": float((back - x[:n]).square().sum(1).mean()),
                "of E[x0 | x_t]": float((v / (1 + (2 * sent.level.lam).exp() * v)).sum()),
                "same": torch.equal(back, model(sent.state, sent.level).x0),
            }
        )
    return rows


def table(record: Row) -> str:
    """As the page shows it."""
    over = {(r["sde"], r["steps"]): r["over"] for r in record["rates"]}
    steps = sorted({k for _, k in over})
    lines = ["| steps | " + " | ".join(map(str, steps)) + " |", "|---" * (len(steps) + 1) + "|"]
    for sde in dict.fromkeys(name for name, _ in over):
        lines.append(f"| {sde} | " + " | ".join(f"{over[sde, k]:.2%}" for k in steps) + " |")
    lines += ["", "| bits | mean | ancestral | flow | Shannon |", "|---|---|---|---|---|"]
    for row in record["distortions"]:
        three = (row[name] for name in ("mean", "ancestral", "flow"))
        cells = [f"{got:.4g} ({got / exact - 1:+.1%})" for got, exact in three]
        lines.append(f"| {row['bits']:.2f} | {' | '.join(cells)} | {row['Shannon']:.4g} |")
    for name in ("channels", "messages"):
        rows = record[name]
        heads = (key.replace("|", "\\|") for key in rows[0])
        lines += ["", f"| {' | '.join(heads)} |", "|---" * len(rows[0]) + "|"]
        lines += [f"| {' | '.join(cell(v) for v in row.values())} |" for row in rows]
    return "\n".join(lines)


def cell(value: Any) -> str:
    """A number in three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=OUT)
    parse.add_argument("--table", action="store_true")
    args = parse.parse_args()
    if args.table:
        print(table(read_json(args.out)))
        return
    torch.set_num_threads(1)
    few = args.quick
    record = {
        "what": "rates, distortions, channels and messages beside closed forms",
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "rates": rates(4 if few else 256, (20, 40) if few else (100, 200, 500, 1000)),
        "distortions": distortions(4 if few else 1024, 20 if few else 1000),
        "channels": channels(20 if few else 1000, (2,) if few else (2, 5, 7)),
        "messages": messages(
            2 if few else 16, (8.0,) if few else (6.0, 8.0, 10.0), 2 if few else 5
        ),
    }
    write_json(args.out, record)
    print(table(record))


if __name__ == "__main__":
    main()
