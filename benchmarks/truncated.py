"""What an early end costs: KL of its Gaussian prior, and samples of a run from T* beside from T.

    python benchmarks/truncated.py                       the exact table, into truncated.json
    python benchmarks/truncated.py --run outputs/digits  a run of sdegen-train's, its part alone

kl:      KL(p_T* || N) in nats of the bench's overlapping modes in the plane, from draws, for the
         Gaussian of their moments and for the SDE's own prior, with standard errors.
run:     Frechet distance and sliced W2 of as many samples as held-out data, by the default solver
         from T and from each T*, at each number of calls; of several seeds, the same for all:
         means and standard errors, and of the differences from T.
"""

from __future__ import annotations

import argparse
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import sdegen as sg
from sdegen.exact.orders import mixture
from sdegen.files import read_json, write_json
from sdegen.model import truncated_model
from sdegen.runs.build import build_data
from sdegen.runs.folder import in_memory, load_run, quality_of
from sdegen.sde import truncated

OUT = Path(__file__).with_suffix(".json")
USUAL = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
SDES: dict[str, tuple[sg.LinearSDE, Sequence[float]]] = {
    "VP": (sg.VPSDE(), USUAL),
    "flow": (sg.FlowSDE(T=1.0), USUAL),
    "EDM": (sg.EDMSDE(), (0.5, 1.0, 2.0, 4.0, 8.0, 80.0)),
}


def of(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard error."""
    column = torch.tensor(values, dtype=torch.float64)
    error = column.std() / math.sqrt(len(values)) if len(values) > 1 else column.new_zeros(())
    return {"mean": float(column.mean()), "error": float(error)}


def kl_table(n: int) -> list[dict[str, Any]]:
    """Of the mixture, by SDE and T*; the standard one is the SDE's own prior."""
    law, rows = mixture(), []
    draws = torch.Generator().manual_seed(0)
    for name, (sde, ends) in SDES.items():
        for T in ends:
            level, short = sde(T), truncated(sde, law.sample(n, draws), T)
            fresh = law.sample(n, draws)
            x = sde.mix(fresh, level, torch.randn(fresh.shape, generator=draws).double())
            log_p = law.log_prob(x, level)
            row: dict[str, Any] = {"sde": name, "T": T}
            for what, prior in (("fitted", short.prior), ("standard", sde.prior)):
                other = prior.log_prob(x)
                off = log_p - other
                row[what] = {"mean": float(off.mean()), "error": float(off.std() / math.sqrt(n))}
            rows.append(row)
    return rows


def run_table(
    folder: Path, n: int, seeds: int, ends: Sequence[float], budgets: Sequence[int]
) -> dict[str, Any]:
    """A run's samples from T and from each T*."""
    run = load_run(folder, [], "cpu")
    quality = quality_of(folder, run.config)
    data = in_memory(build_data(run.config)[0]).x
    model = run.given(n).requires_grad_(False)
    models = {"T": model} | {f"{T:g}": truncated_model(model, data, T) for T in ends}
    cells: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for end, each in models.items():
        cells[end] = {str(nfe): [] for nfe in budgets}
        for nfe in budgets:
            for seed in range(seeds):
                x = sg.sample(each, (n, *run.shape), nfe=nfe, seed=seed)
                frechet, sliced = quality.distances(x)
                assert frechet is not None
                cells[end][str(nfe)].append((frechet, sliced))
            print(end, nfe, cells[end][str(nfe)], flush=True)
    rows = [
        {
            "end": end,
            "nfe": int(nfe),
            "frechet": of([f for f, _ in found]),
            "sliced": of([s for _, s in found]),
            "frechet less that from T": of(
                [f - g for (f, _), (g, _) in zip(found, cells["T"][nfe], strict=True)]
            ),
        }
        for end, by_budget in cells.items()
        for nfe, found in by_budget.items()
    ]
    floor = quality.floor(n)
    return {"n": n, "seeds": seeds, "floor": [floor.frechet, floor.sliced], "rows": rows}


def main() -> None:
    """The command."""
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--run", type=Path)
    parse.add_argument("--n", type=int, default=449)
    parse.add_argument("--seeds", type=int, default=4)
    parse.add_argument("--ends", nargs="*", type=float, default=[0.7, 0.5])
    parse.add_argument("--budgets", nargs="*", type=int, default=[8, 40])
    parse.add_argument("--draws", type=int, default=200_000)
    parse.add_argument("--out", type=Path, default=OUT)
    asked = parse.parse_args()
    torch.set_num_threads(1)
    record = read_json(asked.out) if asked.out.is_file() else {}
    record |= {
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
    }
    if asked.run is None:
        record["kl"] = {"draws": asked.draws, "rows": kl_table(asked.draws)}
    else:
        found = run_table(asked.run, asked.n, asked.seeds, asked.ends, asked.budgets)
        record["run"] = {"name": asked.run.name, **found}
    write_json(asked.out, record)


if __name__ == "__main__":
    main()
