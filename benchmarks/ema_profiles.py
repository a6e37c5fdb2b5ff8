"""Averages of any width after the training, and EDM2's network beside the U-Net, on digits.

    python benchmarks/ema_profiles.py [--quick] [--runs FOLDER] [--out FOLDER]

Trains both with the same steps and batches (a folder that holds a finished run is not trained
again), takes the held-out loss of both, and the Frechet distance of samples of the EDM2 run at
widths of the average beside its fixed decay. Writes ema_profiles.json and ema_profiles.svg.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

import sdegen as sg
from sdegen.data import digits
from sdegen.files import write_json
from sdegen.losses import EDMWeighting, LogNormalTime, low_discrepancy
from sdegen.runs.folder import load_run, quality_of

STEPS, BATCH, SNAPSHOTS, NFE, SEEDS = 600, 64, 8, 10, 4
STDS = [0.02, 0.035, 0.05, 0.065, 0.08, 0.1]
NETS = {"unet": "digits", "edm2": "networks/edm2"}


def train(folder: Path, name: str, experiment: str, steps: int) -> float:
    """A run of the command, if it is not there; its seconds of training."""
    if not (folder / "outputs" / name / "model.safetensors").is_file():
        few = [f"~evaluate.solvers.{each}" for each in ("ddpm", "ddim", "heun", "euler_maruyama")]
        how = [f"experiment={experiment}", f"name={name}", f"train.steps={steps}", *few]
        how += [
            f"train.batch_size={BATCH}",
            f"train.snapshot_every={steps // SNAPSHOTS}",
            "device=cpu",
        ]
        how += ["evaluate.budgets=[4]"]
        command = [Path(sys.executable).with_name("sdegen-train"), *how]
        subprocess.run(command, cwd=folder, check=True)
    records = (folder / "outputs" / name / "metrics.jsonl").read_text().splitlines()
    return sum(json.loads(line)["seconds"] for line in records)


def held_out(model: Any, data: Any) -> dict[str, float]:
    """The EDM loss on held-out data, with the same noise for all: the mean of eight draws, and the
    standard error of these."""
    torch.manual_seed(1)
    model = model.given(y=data.y)
    how: dict[str, Any] = {"times": LogNormalTime(), "draw": low_discrepancy}
    how["weighting"] = EDMWeighting(0.7517)  # sigma_data of the digits
    with torch.no_grad():
        found = torch.stack([sg.dsm_loss(model, data.x, **how).mean() for _ in range(8)])
    return {"mean": float(found.mean()), "error": float(found.std() / 8**0.5)}


def frechet(run: Any, quality: Any, seeds: int) -> dict[str, float]:
    """Of 899 samples, the mean over starts and the standard error of the mean."""
    y = digits("train").y
    model, shape = run.given(y=y), (len(y), 1, 8, 8)
    found = []
    for seed in range(seeds):
        x = sg.sample(model, shape, nfe=NFE, solver=sg.DPMSolverPP(2), seed=seed)
        found.append(quality.distances(x)[0])
    values = torch.tensor(found)
    return {"mean": float(values.mean()), "error": float(values.std() / seeds**0.5)}


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it works")
    parser.add_argument("--runs", type=Path, help="where runs are, or come to be")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    asked = parser.parse_args()
    steps, seeds, stds = (8, 2, STDS[4:6]) if asked.quick else (STEPS, SEEDS, STDS)
    runs, test = asked.runs or Path(tempfile.mkdtemp()), digits("test")
    out: dict[str, Any] = {"steps": steps, "batch_size": BATCH, "nfe": NFE, "seeds": seeds}
    out |= {"machine": platform.machine(), "python": platform.python_version()}
    out |= {"torch": torch.__version__, "threads": torch.get_num_threads(), "nets": {}}
    for name, experiment in NETS.items():
        seconds, place = train(runs, name, experiment, steps), runs / "outputs" / name
        widths = {str(std): held_out(sg.load(place, ema_std=std), test) for std in (0.05, 0.1)}
        fixed = held_out(sg.load(place), test)
        out["nets"][name] = {"seconds": seconds, "ema 0.999": fixed, "ema_std": widths}
        print(name, out["nets"][name], flush=True)
    place = runs / "outputs" / "edm2"
    run = load_run(place, [], "cpu")
    quality = quality_of(place, {**run.config, "packages": []})
    size = sum(path.stat().st_size for path in (place / "snapshots").iterdir())
    models = size / (place / "model.safetensors").stat().st_size
    out["snapshots"] = {"files": SNAPSHOTS, "models": models}
    out["frechet"] = {"ema 0.999": frechet(run.model, quality, seeds), "ema_std": {}}
    print(out["frechet"], flush=True)
    for std in stds:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model = sg.load(place, ema_std=std)
        row = {**frechet(model, quality, seeds), "held_out": held_out(model, test)["mean"]}
        out["frechet"]["ema_std"][str(std)] = {**row, "warned": bool(said)}
        print(std, row, flush=True)
    write_json(asked.out / "ema_profiles.json", out)
    picture(out["frechet"], asked.out / "ema_profiles.svg")


def picture(found: dict[str, Any], path: Path) -> None:
    """Frechet distance over the width, and that of the fixed decay."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    rows = {float(std): row for std, row in found["ema_std"].items()}
    means, errors = ([row[key] for row in rows.values()] for key in ("mean", "error"))
    axes.errorbar(list(rows), means, errors, marker="o", label="power profile, from snapshots")
    fixed = found["ema 0.999"]
    axes.axhline(fixed["mean"], color="0.4", linestyle="--", label="fixed decay 0.999")
    axes.fill_between(
        [min(rows), max(rows)],
        fixed["mean"] - fixed["error"],
        fixed["mean"] + fixed["error"],
        color="0.85",
    )
    axes.set(xlabel="ema_std", ylabel="Frechet distance", ylim=(0, None))
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
