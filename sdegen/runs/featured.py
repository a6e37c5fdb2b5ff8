"""A run's samples beside its data, in features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from sdegen.data import ArrayData, gather
from sdegen.files import read_tensors, write_json
from sdegen.metrics import Classified, Features, Fidelity, as_bytes, features_of, fidelity
from sdegen.metrics.distances import lines
from sdegen.runs.build import build, build_split, holds_out
from sdegen.runs.chunks import SAMPLES
from sdegen.runs.folder import Run, device_of, load_run, quality_of, with_length
from sdegen.runs.settings import EvaluateSettings, record
from sdegen.solvers.solver import arrived


class Featured(NamedTuple):
    """What samples are worth beside data, and what as many other data are; a text of it, the
    file that has it, and the number that was asked for."""

    samples: Fidelity
    floor: Fidelity | None
    text: str
    file: Path
    value: float | None


def classifier_of(run: Run, packages: Sequence[str]) -> Classified:
    """The features of the small classifier that a run's samples are measured by; ValueError where
    its data have no classes."""
    quality = quality_of(run.folder, {**run.config, "packages": list(packages)})
    if quality.classifier is None:
        raise ValueError(
            "features=classifier needs images with classes, which this run's data have not: take "
            "features=efficientnet_lite0 or features=raw."
        )
    return Classified(quality.classifier)


def features_for(node: Mapping[str, Any] | None, run: Run, packages: Sequence[str]) -> Features:
    """What a configuration's ``features`` are; of the run where they are ``classifier_of`` it."""
    made: Any = build(node, packages)
    own = isinstance(made, partial) and made.func is classifier_of
    return made(run, packages) if own else made


def featured_run(settings: EvaluateSettings) -> Featured:
    """Compare samples that ``sdegen-sample`` left in a run with its data, and write a JSON file
    beside them.

    Beside the samples stands the floor: as many training data, where something is held out to
    compare them with. ValueError where there are no such samples or all have failed, and where
    they or the data are no images.
    """
    source = Path(settings.run)
    folder = samples_folder(source, settings.samples)
    run = load_run(source, settings.packages, settings.device)
    features: Any = features_for(settings.features, run, settings.packages)
    if isinstance(features, nn.Module):
        features = features.to(device_of(settings.device))
    tensors, _ = read_tensors(folder / SAMPLES)
    good = arrived(tensors["status"])
    if not good.any():
        raise ValueError(f"None of the {len(good)} samples in {folder} finished.")
    config = {**run.config, "packages": settings.packages}
    other = {} if settings.data is None else {"data": {**settings.data, "held_out": None}}
    data = gather(with_length(build_split({**config, **other}, settings.split)), settings.n)
    seen = seen_by(features, data.x, settings.batch)
    own = seen_by(features, tensors["x"][good], settings.batch)
    found = fidelity(own, seen, seed=settings.seed)
    floor = None
    if settings.data is None and settings.split == "test" and holds_out(config["data"]):
        rest: ArrayData = gather(with_length(build_split(config, "train")), int(good.sum()))
        others = seen_by(features, rest.x, settings.batch)
        floor = fidelity(others, seen, seed=settings.seed)
    name, inception = name_of(features), bool(getattr(features, "inception", False))
    failed = f", {int((~good).sum())} more failed" if not good.all() else ""
    text = f"{name}, {settings.split} data\n" + lines(folder.name + failed, found, inception)
    if floor is not None:
        text += "\n" + lines("training data (floor)", floor, inception)
    about = {"features": name, "sha256": getattr(features, "sha256", None)}
    result = {**about, "config": record(settings), "samples": as_json(found)}
    result |= {"floor": None if floor is None else as_json(floor)}
    file = folder / f"{file_name(settings)}.json"
    write_json(file, result)
    value = {"frechet": found.frechet.value, "kernel": found.kernel.value}
    return Featured(found, floor, text, file, value.get(settings.objective or ""))


def samples_folder(source: Path, name: str | None) -> Path:
    """The folder of a run's samples; ValueError, with those that there are, for another one."""
    known = sorted(path.parent.name for path in source.glob(f"samples/*/{SAMPLES}"))
    if name not in known:
        there = f"give samples=NAME, one of {', '.join(known)}" if known else "there are none yet"
        raise ValueError(
            f"There are no samples {name!r} in {source}: {there}. sdegen-sample makes them."
        )
    return source / "samples" / str(name)


def seen_by(features: Features, x: Tensor, batch: int) -> Tensor:
    """Features of images in [-1, 1], ``batch`` at a time."""
    return features_of(features, as_bytes(x), batch=batch)


def name_of(features: Any) -> str:
    """What features are called."""
    features = features.func if isinstance(features, partial) else features
    return str(getattr(features, "name", getattr(features, "__name__", type(features).__name__)))


def file_name(settings: EvaluateSettings) -> str:
    """A name for a result: what was compared in, with which data, and a hash of these settings, so
    that another comparison is another file."""
    same = {"features": settings.features, "data": settings.data, "n": settings.n}
    text = json.dumps({**same, "seed": settings.seed}, sort_keys=True)
    target = str((settings.features or {})["_target_"]).rpartition(".")[2].lower()
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"features-{target}-{settings.split}-{digest}"


def as_json(found: Fidelity) -> dict[str, Any]:
    """The figures by name; what could not be told is null."""
    shares = None if found.shares is None else found.shares._asdict()
    frechet, kernel = found.frechet._asdict(), found.kernel._asdict()
    for each in (frechet, kernel):
        each["error"] = each["error"] if each["error"] == each["error"] else None
    return {"frechet": frechet, "kernel": kernel, "shares": shares}
