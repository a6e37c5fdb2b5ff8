"""The folder of a finished run: its weights, what they say of themselves, what measures them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset

from sdegen.checks import warn
from sdegen.data import ArrayData, class_counts, class_labels, gather
from sdegen.data.classes import ENOUGH
from sdegen.data.items import collected
from sdegen.files import load_weights, read_header, read_tensors, write_tensors
from sdegen.model.score import ScoreModel
from sdegen.runs.kept import with_kept
from sdegen.runs.settings import refuse_weights
from sdegen.runs.telling import Prompts, build_text, kept_captions
from sdegen.runs.weights import WEIGHTS as WEIGHTS
from sdegen.runs.weights import begin
from sdegen.runs.weights import content_of as content_of
from sdegen.text import Encoder
from sdegen.training.checkpoint import CHECKPOINT, checkpoint_of, weights_in
from sdegen.training.frozen import FROZEN, content_of_frozen, refuse_other_base, whole_state

REFERENCE = "reference.safetensors"


@dataclass(frozen=True)
class Run:
    """A finished run.

    model: the averaged model.  config: the run's.  shape: of a sample.  counts: how often the
    classes 0, 1, ... come in its training data, empty where the model takes no label; names: what
    they are called, where they have names.  step: of the weights, None of a run that did not say.
    text: its text encoder, of a run that has one, and captions of its training data.
    """

    folder: Path
    model: ScoreModel
    config: dict[str, Any]
    shape: list[int]
    counts: list[int]
    names: tuple[str, ...]
    step: int | None
    text: Encoder | None = None
    captions: tuple[str, ...] = ()

    def given(self, n: int) -> Any:
        """The model for n samples: with labels, or captions, as its training data have them."""
        if self.text is not None:
            return Prompts.of(self.text, self.captions[:n]).given(self.model, n)
        return given_labels(self.model, n, self.counts)


def description(config: dict[str, Any], data: Any) -> dict[str, Any]:
    """What weights say of themselves: enough to build their model again, and to sample it without
    the data. Of a stream the classes are counted in its beginning, ``with_length``."""
    about = {"config": config, "shape": list(data.shape), "classes": data.classes}
    counts = class_counts(with_length(data) if data.classes else data)
    counts += [0] * (about["classes"] - len(counts))  # classes that a stream's beginning has not
    about |= {"counts": counts, "names": list(getattr(data, "names", ()))}
    return about | ({"captions": kept_captions(data)} if config.get("text") else {})


def load_run(
    folder: Path,
    packages: list[str],
    device: str,
    weights: str = "finished",
    step: int | None = None,
    ema: float | None = None,
    ema_std: float | None = None,
) -> Run:
    """A finished run, from the folder it is in; a warning where it was trained on since.

    weights: "finished", or "averaged" or "raw", of the last checkpoint, of a run that is not
             finished too.  step: of the checkpoint's, if one of that step was kept.  ema: the
             decay of the average, where there are several.  ema_std: the width of one that is
             made of snapshots. With one of these the weights are a checkpoint's, and averaged
             unless they are "raw".

    Raises ValueError where the weights are missing, damaged, or of another network.
    """
    from sdegen.runs.begun import as_recorded

    finished = weights == "finished" and (step, ema, ema_std) == (None, None, None)
    path = folder / WEIGHTS if finished else checkpoint_of(folder, step)
    if finished:
        tensors, header = read_tensors(path)
    else:
        tensors, header = weights_in(path, weights == "raw", ema, folder, ema_std)
        if "run" not in header:
            raise ValueError(
                f"The checkpoint {path} does not say what run it is of: train a step further with "
                "sdegen-train, or take weights=finished."
            )
        own = {name: header[name] for name in ("step", FROZEN) if name in header}
        header = {**header["run"], **own}
    config, shape, classes = as_recorded(header["config"]), header["shape"], header["classes"]
    if "sde" not in config:
        raise ValueError(
            f"The run in {folder} is an autoencoder, which generates nothing by itself: train a "
            f"model in its latents, sdegen-train experiment=latents/diffusion coder.run={folder}."
        )
    model = as_trained({**config, "packages": packages}, header, path, folder)
    load_weights(model, whole_state(model, tensors) if FROZEN in header else tensors, path)
    at, later = header.get("step"), trained_until(folder)
    if finished and at is not None and later is not None and later > at:
        warn(
            f"The weights {path} are of step {at}, where the run was finished, but its "
            f"checkpoint is of step {later}: finish it with the command that trains it, or take "
            "the checkpoint's by weights=averaged."
        )
    counts = header.get("counts", [1] * classes) if config["conditional"] else []
    model = model.to(device_of(device)).eval().given(config.get("told"))
    text, config = build_text(config.get("text"), packages), with_kept(config, folder)
    said = tuple(header.get("names", ())), at, text, tuple(header.get("captions", ()))
    return Run(folder, model, config, shape, counts, *said)


def as_trained(
    config: dict[str, Any], header: dict[str, Any], path: Path, folder: Path
) -> ScoreModel:
    """The model of a run before its weights are loaded, with those that were frozen as they were
    where a file has them not; ValueError where they cannot be had."""
    from sdegen.runs.adapting import adapted_model
    from sdegen.runs.network import build_model

    shape, classes = header["shape"], header["classes"]
    if config.get("adapter"):
        model = adapted_model(config, shape, classes, folder)
    elif FROZEN not in header:
        return build_model(config, shape, classes)
    else:  # as it was begun
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config["train"]["seed"])
            model = build_model(config, shape, classes)
        begin(model, config)
    refuse_other_base(path, header[FROZEN], content_of_frozen(model))
    return model


def generating(run: Run, what: str) -> Run:
    """A run itself; ValueError for one that restores, which generates nothing by itself, and for a
    student, which knows nothing but the steps that it was trained for."""
    if own := run.config.get("sampler"):
        kind = str(own["_target_"]).rpartition(".")[2]
        raise ValueError(
            f"{what} is for models of a score or a flow, but {run.folder} is a student, which "
            f"{kind} samples and nothing else: sdegen-sample run={run.folder}."
        )
    if task := run.config.get("task"):
        name = str(task["_target_"]).rpartition(".")[2].lower()
        raise ValueError(
            f"{what} is for runs that generate, but {run.folder} was trained to restore: measure "
            f"it with sdegen-sample run={run.folder} task={name}."
        )
    return run


def of_data(run: Run, what: str) -> Run:
    """A run itself; ValueError for one that lives in latents, where ``what`` is for models of the
    data themselves."""
    if coder := run.config.get("coder"):
        raise ValueError(
            f"{what} is for models of the data themselves, but {run.folder} is a model of the "
            f"latents of {coder['run']}."
        )
    return run


def load(
    folder: str | Path,
    device: str = "cpu",
    weights: str = "finished",
    packages: Sequence[str] = (),
    step: int | None = None,
    ema: float | None = None,
    ema_std: float | None = None,
) -> ScoreModel:
    """The model of a run that ``sdegen-train`` left in a folder, in eval mode on a device.

    weights:  "finished", those of a finished run, averaged; or of its last checkpoint, while it
              trains too: "averaged", or "raw" as the optimiser left them.
    packages: of your own, that the run's configuration may name.
    step:     of a checkpoint that ``train.keep_every`` has kept, or of the last one.
    ema:      the decay of the average, where ``train.ema`` lists several; the first by default.

    ema_std:  the relative standard deviation of a power profile, in (0, 0.2887]: the average over
              it is made of the run's snapshots (``train.snapshot_every``) by ``posthoc``.

    With a step, a decay or a width the weights are a checkpoint's, averaged unless they are "raw".

    A conditional model is given its labels as any: ``load(folder).given(y=labels)``, in the
    numbers of the training data's classes.

    Raises ValueError where the weights are missing, damaged, or of another network, and, with
    those that there are, for another step or decay.
    """
    refuse_weights(weights, step, ema, ema_std)
    if not isinstance(folder, str | os.PathLike):
        raise ValueError(f"load takes the folder of a run, but it is {folder!r}.")
    return load_run(Path(folder), list(packages), device, weights, step, ema, ema_std).model


def digest(run: Run) -> str:
    """Weights in a few letters."""
    hashed = hashlib.sha256()
    for name, tensor in run.model.state_dict().items():
        hashed.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return hashed.hexdigest()[:16]


def trained_until(folder: Path) -> int | None:
    """The step of a folder's checkpoint, None where there is none that can be read: a finished
    run's weights do not need it."""
    try:
        return int(read_header(folder / CHECKPOINT)["step"])
    except ValueError:
        return None


def device_of(name: str) -> torch.device:
    """A device, "auto" the GPU where there is one; ValueError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        on_device = torch.zeros(1, device=name)
        on_device.cpu()
        return on_device.device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise ValueError(f"device={name} cannot be used: {reason}. Use device=cpu.") from None


def given_labels(model: Any, n: int, counts: list[int]) -> Any:
    """A conditional model with labels for n samples in the shares of the data's classes, an
    unconditional one, without counts, as it is."""
    return model.given(y=class_labels(n, counts).to(model.device)) if counts else model


def with_length(data: Any) -> Any:
    """A data set itself, or the first ``ENOUGH`` items of a stream as an array.

    Raises ValueError for a stream without items, or whose labels are not of its classes.
    """
    if not isinstance(data, IterableDataset):
        return data
    items = list(islice(data, ENOUGH))
    if not items:
        raise ValueError("The stream of data has no items.")
    return collected(items, data)


def in_memory(data: Any) -> ArrayData:
    """A data set that is an array, or a fair part of another one, as an array."""
    known = with_length(data)
    return known if isinstance(known, ArrayData) else gather(known, ENOUGH)


def quality_of(folder: Path, config: dict[str, Any], pair: Any = None) -> Any:
    """The Quality that samples of a run are measured by: made once, of its training and held-out
    data, and kept in its folder.

    pair: the two data sets, where they are at hand: what was kept of others is then replaced.
    """
    from sdegen.metrics.quality import Quality
    from sdegen.runs.build import build_data

    path = folder / REFERENCE
    if path.is_file() and pair is None:
        return Quality.of(read_tensors(path)[0])
    train, test = pair or build_data(config)
    if test is None:
        raise ValueError("the run has no held-out data (data.test).")
    quality = Quality(in_memory(train), in_memory(test))
    write_tensors(path, quality.tensors(), {})
    return quality
