"""The folder of a finished run: its weights, and what they say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sdegen.data import ArrayData

WEIGHTS = "model.safetensors"


def weights_header(config: dict[str, Any], data: Any) -> dict[str, Any]:
    """What a weights file says of itself: enough to build its model again."""
    return {"config": config, "shape": list(data.shape), "classes": data.classes}


def load(
    folder: Path, packages: list[str], device: str
) -> tuple[Any, dict[str, Any], list[int], int]:
    """A run's averaged model, its configuration, and the shape and classes it samples."""
    from sdegen.files import load_weights, read_tensors
    from sdegen.runs.build import build_model

    path = folder / WEIGHTS
    tensors, header = read_tensors(path)
    trained, shape, classes = header["config"], header["shape"], header["classes"]
    model = build_model({**trained, "packages": packages}, shape, classes)
    load_weights(model, tensors, path)
    model = model.to(device_of(device)).eval()
    return model, trained, shape, classes if trained["conditional"] else 0


def device_of(name: str) -> torch.device:
    """A device, "auto" the GPU where there is one; ValueError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"device={name} cannot be used: {reason}. Use device=cpu.") from None


def given_labels(model: Any, n: int, classes: int) -> Any:
    """A conditional model with labels for n samples, an unconditional one as it is."""
    labels = class_labels(n, classes)
    return model if labels is None else model.given(y=labels.to(model.device))


def gather(data: Any, most: int = 5000) -> ArrayData:
    """A data set, or its first samples, as one array."""
    if isinstance(data, ArrayData):
        return data
    levels = getattr(data, "levels", 0)
    pairs = [data[i] for i in range(min(len(data), most))]
    labels = torch.stack([y for _, y in pairs]) if data.classes else None
    return ArrayData(torch.stack([x for x, _ in pairs]), labels, levels)


def class_labels(n: int, classes: int) -> torch.Tensor | None:
    """Labels that go round the classes, None for an unconditional model."""
    return torch.arange(n) % classes if classes else None
