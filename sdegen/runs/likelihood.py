"""Bits per dimension or log-likelihoods of a run on data, batch by batch, resumable."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PARTS = "parts.jsonl"


Row = dict[str, float | None]
"""Numbers by name; None for what could not be computed."""


def trained_range(trained: dict[str, Any]) -> tuple[float, float] | None:
    """What a run's training data lies in; None where that data cannot be read any more."""
    from sdegen.runs.build import build_data
    from sdegen.runs.folder import gather

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
    from sdegen.files import write_json, write_text

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

    from sdegen.checks import one_of
    from sdegen.likelihood.bits import bits_per_dim, spread
    from sdegen.likelihood.bounds import continuous_bound, discrete_bound, states
    from sdegen.likelihood.density import log_prob
    from sdegen.likelihood.ground import warn_of_failures
    from sdegen.noise.source import Seeded
    from sdegen.runs.build import build, build_walk

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
    bounds: dict[str, Any] = {
        "elbo": (continuous_bound, "draws", "elbo_draws"),
        "ddpm": (discrete_bound, "steps", "ddpm_steps"),
    }
    asked = {name: entry for name, entry in bounds.items() if config[entry[2]]}
    on_values = one_of(config["bounds_on"], "bounds_on", {"values": True, "dequantised": False})
    as_values = levels if on_values and levels else None
    more, x0 = 0.0, x
    if asked and levels and as_values is None:
        x0, more = spread(model, k, levels, noise)
    elif asked:
        x0 = states(model, x if as_values is None else k, as_values)
    for name, (bound, key, setting) in asked.items():
        terms = bound(model, x0, noise, levels=as_values, **{key: config[setting]})
        warn_of_failures("bounds", terms.status)
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
