"""``sdegen-evaluate``: bits per dimension, or log-likelihood, of a trained run on data."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdegen.cli.main import hydra_main

PARTS = "parts.jsonl"
Row = dict[str, float | None]
"""Numbers by name; None for what could not be computed."""


def main() -> None:
    """The command."""
    hydra_main(run, "evaluate")


def run(config: dict[str, Any]) -> None:
    """Evaluate batch by batch, each recorded when done: the same command goes on from there."""
    from tqdm import tqdm

    from sdegen.cli.build import build_data
    from sdegen.cli.report import WEIGHTS, gather
    from sdegen.cli.sample import load
    from sdegen.plots import save_histogram
    from sdegen.training.files import claim, write_json

    for name in ("batch", "n"):
        if config[name] is not None and not config[name] >= 1:
            raise ValueError(f"{name} must be at least 1, but it is {config[name]!r}.")
    source = Path(config["run"])
    model, trained, shape, classes = load(source, config["packages"], config["device"])
    about = {**trained, "packages": config["packages"]}
    if config.get("data"):
        about["data"] = config["data"]
    pair = dict(zip(("train", "test"), build_data(about), strict=True))
    if config["split"] not in pair:
        raise ValueError(f"split must be 'train' or 'test', but it is {config['split']!r}.")
    data = gather(pair[config["split"]], config["n"] or 10**9)
    x, y = data.x[: config["n"]], data.y[: config["n"]]
    check(x, shape, data.levels, trained_range({**trained, "packages": config["packages"]}))
    folder = source / config["name"]
    claim(folder)
    # Other weights or other data under the same settings are another evaluation.
    digest = hashlib.sha256((source / WEIGHTS).read_bytes() + x.contiguous().numpy().tobytes())
    done = resumed(folder, {**config, "of": digest.hexdigest()}, len(x))
    with (
        tqdm(total=len(x), initial=len(done), unit="sample", leave=False) as bar,
        (folder / PARTS).open("a", encoding="utf-8") as parts,
    ):
        for first in range(len(done), len(x), config["batch"]):
            rows = slice(first, first + config["batch"])
            given = model.given(y=y[rows].to(model.device)) if classes else model
            found = measure(given, x[rows], data.levels, config, first)
            parts.writelines(json.dumps(row) + "\n" for row in found)
            parts.flush()
            done += found
            bar.update(len(found))
    values = {name: [row[name] for row in done] for name in done[0]}
    summary = {name: mean_of(column) for name, column in values.items() if name != "error"}
    unit = "bits per dimension" if data.levels else "nats"
    result = {"config": config, "n": len(done), "unit": unit, "mean": summary, "samples": values}
    write_json(folder / "result.json", result)
    shown = {
        name: [v for v in column if v is not None]
        for name, column in values.items()
        if name not in ("error", "nfe")
    }
    save_histogram(shown, folder / "histogram.png", unit, f"{source.name}, {config['split']}")
    print(table(summary, unit, len(done)))
    print(f"Result, histogram and values of all samples are in {folder}")


def trained_range(trained: dict[str, Any]) -> tuple[float, float] | None:
    """What a run's training data lies in; None where that data cannot be read any more."""
    from sdegen.cli.build import build_data
    from sdegen.cli.report import gather

    try:
        data = gather(build_data(trained)[0])
    except (ValueError, OSError):
        return None
    return (-1.0, 1.0) if data.levels else (float(data.x.min()), float(data.x.max()))


def check(x: Any, shape: list[int], levels: int, seen: tuple[float, float] | None) -> None:
    """Refuse data of another kind than the model was trained on.

    Images are where the training data was; real numbers, whose extremes vary from one sample of a
    distribution to another, within half its width beyond.
    """
    if list(x.shape[1:]) != shape:
        raise ValueError(
            f"The run was trained on samples of shape {tuple(shape)}, but these are of "
            f"{tuple(x.shape[1:])}."
        )
    low, high = (-1.0, 1.0) if seen is None and levels else seen or (-math.inf, math.inf)
    more = 1e-6 if levels else (high - low) / 2
    least, most = float(x.min()), float(x.max())
    if least < low - more or most > high + more:
        raise ValueError(
            f"The run was trained on data in [{low:g}, {high:g}], but these reach from {least:g} "
            f"to {most:g}: scale them as the training data was."
        )


def resumed(folder: Path, config: dict[str, Any], n: int) -> list[Row]:
    """The samples done before by the same settings; ValueError where the folder holds others."""
    from sdegen.training.files import write_json, write_text

    path, same = folder / "settings.json", {k: v for k, v in config.items() if k != "batch"}
    parts = folder / PARTS
    lines = parts.read_text(encoding="utf-8").split("\n") if parts.is_file() else [""]
    if len(lines) > 1 and json.loads(path.read_text(encoding="utf-8")) != same:
        raise ValueError(
            f"{folder} holds an evaluation with other settings, weights or data: give name=... "
            "for this one."
        )
    write_json(path, same)
    whole = [json.loads(line) for line in lines[:-1]]  # the last is empty, or was cut short
    write_text(parts, "".join(json.dumps(row) + "\n" for row in whole))
    return whole[:n]


def measure(model: Any, x: Any, levels: int, config: Mapping[str, Any], first: int) -> list[Row]:
    """One batch: numbers by name for each sample. Sample i of the data has stream (seed, i)."""
    import torch

    from sdegen.bits import bits_per_dim, spread, unbounded
    from sdegen.bounds import discrete_elbo, elbo
    from sdegen.cli.build import build, build_walk
    from sdegen.likelihood import log_prob
    from sdegen.noise import Seeded
    from sdegen.score import one_of

    d, noise = x[0].numel(), Seeded(config["seed"], first)
    keys = ("steps", "nfe", "divergence", "probes")
    how = {key: config[key] for key in keys if config[key] is not None}
    walk = build_walk(dict(config))
    how |= {} if walk is None else {"walk": walk}
    if config.get("solver"):
        how["solver"] = build(config["solver"], config["packages"])
    passes = {key: config[key] for key in ("repeats", "importance", "protocol")}
    k = ((x + 1) * (levels - 1) / 2).round().to(torch.uint8) if levels else x
    if not levels and any(value not in (None, 1) for value in passes.values()):
        raise ValueError(f"{', '.join(passes)} are for images; this data is of real numbers.")
    found: Any = (
        bits_per_dim(model, k, levels=levels, noise=noise, **passes, **how)
        if levels
        else log_prob(model, x, noise=noise, **how)
    )
    columns = {"flow": found.value, "error": found.error, "nfe": found.nfe}
    bounds = {
        "elbo": (elbo, "draws", "elbo_draws"),
        "ddpm": (discrete_elbo, "steps", "ddpm_steps"),
    }
    if one_of(config["bounds_on"], "bounds_on", {"values": True, "dequantised": False}):
        about, y, given, more = model, k, levels or None, 0.0
    else:
        y, more = spread(model, x=k, levels=levels, noise=noise) if levels else (x, 0.0)
        about, given = unbounded(model) if levels else model, None
    for name, (bound, key, setting) in bounds.items():
        if config[setting]:
            terms = bound(about, y, levels=given, noise=noise, **{key: config[setting]})  # type: ignore[operator]
            columns[name] = terms.bits(d) - more if levels else terms.value
    return [
        {name: v if math.isfinite(v) else None for name, v in zip(columns, row, strict=True)}
        for row in zip(*(column.tolist() for column in columns.values()), strict=True)
    ]


def mean_of(values: list[float | None]) -> dict[str, float | None]:
    """Mean and standard error over the values there are, None where they are too few to tell."""
    known = [v for v in values if v is not None]
    n = len(known)
    mean = statistics.fmean(known) if known else None
    error = statistics.stdev(known) / math.sqrt(n) if n > 1 else None
    return {"mean": mean, "error": error, "failed": len(values) - n}


NAMES = {
    "flow": "probability flow",
    "elbo": "continuous bound",
    "ddpm": "discrete bound",
    "nfe": "network calls",
}


def table(summary: Mapping[str, Mapping[str, float | None]], unit: str, n: int) -> str:
    """The means, with their standard errors, as lines."""
    lines = [f"{f'{unit}, {n} samples':28s}{'mean':>10s}{'+-':>9s}{'failed':>8s}", "-" * 55]
    for name, row in summary.items():
        digits = 1 if name == "nfe" else 4
        cells = ("-" if v is None else f"{v:.{digits}f}" for v in (row["mean"], row["error"]))
        lines.append("{:28s}{:>10s}{:>9s}{:8d}".format(NAMES[name], *cells, row["failed"]))
    return "\n".join(lines)
