"""Bits per dimension or log-likelihoods of a run on data, batch by batch, resumable."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdegen.data import ArrayData, gather
from sdegen.files import claim, locked, write_json, write_text
from sdegen.likelihood.bits import bits_per_dim, spread_over_bins
from sdegen.likelihood.bounds import continuous_bound, data_as_seen, discrete_bound
from sdegen.likelihood.density import log_prob
from sdegen.likelihood.ground import warn_of_failures
from sdegen.model.score import ScoreModel
from sdegen.noise.source import Seeded
from sdegen.runs import bars
from sdegen.runs.build import build, build_split
from sdegen.runs.folder import (
    WEIGHTS,
    Run,
    digest,
    generating,
    in_memory,
    load_run,
    of_data,
    with_length,
)
from sdegen.runs.settings import EvaluateSettings, record
from sdegen.runs.telling import Prompts

PARTS = "parts.jsonl"


Row = dict[str, float | None]
"""Numbers by name; None for what could not be computed."""


class Evaluated(NamedTuple):
    """Means of n samples by name, in a unit, and the folder that holds all there is to know."""

    means: dict[str, dict[str, float | None]]
    unit: str
    n: int
    folder: Path


def evaluate_run(settings: EvaluateSettings) -> Evaluated:
    """Evaluate batch by batch, each recorded when done: the same settings go on from there.

    Of n samples the classes have their shares in the split, and more samples begin with fewer.
    """
    source = Path(settings.run)
    which = settings.weights, settings.step, settings.ema, settings.ema_std
    loaded = load_run(source, settings.packages, settings.device, *which)
    run = generating(loaded, "sdegen-evaluate")
    of_data(run, "A likelihood by sdegen-evaluate")  # sdegen.latents.latent_elbo bounds it
    trained = {**run.config, "packages": settings.packages}
    # Other data are taken whole: no part of them was trained on.
    other = {} if settings.data is None else {"data": {**settings.data, "held_out": None}}
    whole = with_length(build_split({**trained, **other}, settings.split, run.names))
    data = gather(whole, settings.n)
    check_data(data.x, run.shape, data.levels, trained_range(trained))
    folder = source / settings.title
    claim(folder)
    with locked(folder):
        return evaluated(settings, run, data, folder)


def evaluated(settings: EvaluateSettings, run: Run, data: ArrayData, folder: Path) -> Evaluated:
    """The same on the data, in a folder that is ours."""
    from sdegen.plots import save_histogram

    x, y, model, source = data.x, data.y, run.model, run.folder
    # Other weights or other data under the same settings are another evaluation.
    own = settings.title == settings.name
    weights = (source / WEIGHTS).read_bytes() if own else digest(run).encode()
    told = y.contiguous().numpy().tobytes() if run.counts else b""
    told += "\n".join(data.captions).encode() if run.text is not None else b""
    digested = hashlib.sha256(weights + x.contiguous().numpy().tobytes() + told)
    config = record(settings)
    prompts = None if run.text is None else Prompts.of(run.text, data.captions)
    done = resumed(folder, {**config, "of": digested.hexdigest()}, len(x))
    with (
        bars.bar(total=len(x), initial=len(done), unit="sample", leave=False) as bar,
        (folder / PARTS).open("a", encoding="utf-8") as parts,
    ):
        for first in range(len(done), len(x), settings.batch):
            rows = slice(first, first + settings.batch)
            given = model.given(y=y[rows].to(model.device)) if run.counts else model
            if prompts is not None:
                given = prompts.given(model, len(x[rows]), first)
            found = measure(given, x[rows], data.levels, settings, first)
            parts.writelines(json.dumps(row) + "\n" for row in found)
            parts.flush()
            done += found
            bar.update(len(found))
    columns = {name: [row[name] for row in done] for name in done[0]}
    means = {name: mean_of(column) for name, column in columns.items() if name != "error"}
    unit = "bits per dimension" if data.levels else "nats"
    result = {"config": config, "n": len(done), "unit": unit, "mean": means, "samples": columns}
    write_json(folder / "result.json", result)
    shown = {
        name: [v for v in column if v is not None]
        for name, column in columns.items()
        if name not in ("error", "nfe")
    }
    save_histogram(shown, folder / "histogram.png", unit, f"{source.name}, {settings.split}")
    return Evaluated(means, unit, len(done), folder)


def trained_range(trained: dict[str, Any]) -> tuple[float, float] | None:
    """What a run's training data lies in; None where that data cannot be read any more."""
    try:
        data = in_memory(build_split(trained, "train"))
    except (ValueError, OSError):
        return None
    return (-1.0, 1.0) if data.levels else (float(data.x.min()), float(data.x.max()))


def check_data(x: Tensor, shape: list[int], levels: int, seen: tuple[float, float] | None) -> None:
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
    free = ("batch", "objective")
    path, same = folder / "settings.json", {k: v for k, v in config.items() if k not in free}
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


def measure(
    model: ScoreModel, x: Tensor, levels: int, settings: EvaluateSettings, first: int
) -> list[Row]:
    """One batch: numbers by name for each sample. Sample i of the data has stream (seed, i)."""
    d, noise = x[0].numel(), Seeded(settings.seed, first)
    k = ((x + 1) * (levels - 1) / 2).round().to(torch.uint8) if levels else x
    columns = flow_columns(model, k, levels, settings, noise)
    bounds: dict[str, Any] = {
        "elbo": (continuous_bound, {"draws": settings.elbo_draws}),
        "ddpm": (discrete_bound, {"steps": settings.ddpm_steps}),
    }
    wanted = {name: entry for name, entry in bounds.items() if all(entry[1].values())}
    as_values = levels if levels and settings.bounds_on == "values" else None
    more, x0 = 0.0, x
    if wanted and levels and as_values is None:
        x0, more = spread_over_bins(model, k, levels, noise)
    elif wanted:
        x0 = data_as_seen(model, x if as_values is None else k, as_values)
    for name, (bound, how) in wanted.items():
        terms = bound(model, x0, noise, levels=as_values, **how)
        warn_of_failures("bounds", terms.status)
        columns[name] = terms.bits(d) - more if levels else terms.value
    return [
        {name: v if math.isfinite(v) else None for name, v in zip(columns, row, strict=True)}
        for row in zip(*(column.tolist() for column in columns.values()), strict=True)
    ]


def flow_columns(
    model: ScoreModel, k: Tensor, levels: int, settings: EvaluateSettings, noise: Seeded
) -> dict[str, Tensor]:
    """Bits per dimension of whole numbers k below ``levels``, or nats of real ones; their errors,
    and the network calls."""
    how: dict[str, Any] = {
        "solver": build(settings.solver, settings.packages),
        "walk": build(settings.walk, settings.packages) or None,
        "steps": settings.steps,
        "nfe": settings.nfe,
        "divergence": settings.divergence,
        "probes": settings.probes,
    }
    how = {name: value for name, value in how.items() if value is not None}
    passes: dict[str, Any] = {
        "repeats": settings.repeats,
        "importance": settings.importance,
        "protocol": settings.protocol,
    }
    if not levels and any(value not in (None, 1) for value in passes.values()):
        raise ValueError(f"{', '.join(passes)} are for images; this data is of real numbers.")
    found = (
        bits_per_dim(model, k, levels=levels, noise=noise, **passes, **how)
        if levels
        else log_prob(model, k, noise=noise, **how)
    )
    return {"flow": found.value, "error": found.error, "nfe": found.nfe}


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
