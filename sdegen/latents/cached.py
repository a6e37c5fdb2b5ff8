"""Data sets of latents: what an encoder makes of data, made once; what is drawn, drawn anew."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from sdegen.data import ArrayData
from sdegen.data.classes import plain
from sdegen.data.items import split
from sdegen.files import read_header, read_tensors, write_tensors
from sdegen.latents.coding import Latent, posteriors


class Encoded(Dataset[Any]):
    """States z ~ q(z | x) of every x of a data set, from their means and standard deviations.

    mean, std: (n, channels, *), scaled.  given: conditions (n, ...) by name.  classes, names: of
    the labels y.

    An item is (z, y), (z, {name: condition}) or z alone, as the data's were. z is drawn from
    torch's generator: afresh in every epoch, and by ``SeededItems`` the same in a run that goes
    on. ``plain`` is one draw of each as an array.
    """

    levels = 0

    def __init__(
        self,
        mean: Tensor,
        std: Tensor,
        given: dict[str, Tensor] | None = None,
        classes: int = 0,
        names: tuple[str, ...] = (),
    ) -> None:
        self.mean, self.std, self.given = mean, std, given or {}
        self.classes, self.names = classes, names
        self.shape = tuple(mean.shape[1:])
        y = self.given.get("y")
        self.y = torch.zeros(len(mean), dtype=torch.int64) if y is None else y

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, i: int) -> Any:
        mean = self.mean[i]
        z = mean + self.std[i] * torch.randn(mean.shape)
        given = {name: value[i] for name, value in self.given.items()}
        if not given:
            return z
        return (z, given["y"]) if list(given) == ["y"] else (z, given)

    @property
    def plain(self) -> Dataset[Any]:
        """The same with a draw that is always the same."""
        noise = torch.randn(self.mean.shape, generator=torch.Generator().manual_seed(0))
        z = self.mean + self.std * noise
        if set(self.given) <= {"y"}:
            return ArrayData(z, self.y if self.classes else None, 0, self.names)
        return Encoded(z, torch.zeros_like(z), self.given, self.classes, self.names)


def encoded(data: Any, latent: Latent, path: Path | None = None, batch: int = 256) -> Encoded:
    """The latents of a data set, its labels and other conditions beside them.

    path: a file in which means and standard deviations are kept, written once and whole; they are
    the coder's own, so that another scale does not make another file. What the data draw for each
    epoch anew, flips and crops, is left out.

    ValueError for a file of another coder or of other data, for conditions that are not tensors,
    for latents of another scale's channels, and for a stream.
    """
    about: dict[str, Any] = {}
    if path is not None:
        about = {"coder": digest(latent.coder), **described(data)}
        if path.is_file():
            found = read_header(path)
            for name, value in about.items():
                if found.get(name) != value:
                    what = "coder" if name == "coder" else "data set"
                    raise ValueError(
                        f"The latents {path} are of another {what}: delete them, or keep these "
                        "in another file."
                    )
            return scaled(read_tensors(path)[0], latent, data)
    tensors = everything(latent, data, batch)
    if path is not None:
        write_tensors(path, tensors, about)
    return scaled(tensors, latent, data)


def everything(latent: Latent, data: Any, batch: int) -> dict[str, Tensor]:
    """Means, standard deviations and conditions of all of a data set, on the CPU."""
    parts: dict[str, list[Tensor]] = {}
    for mean, std, given in posteriors(latent.coder, data, batch):
        for name, value in {"mean": mean, "std": std, **named(given)}.items():
            parts.setdefault(name, []).append(value.detach().cpu())
    return {name: torch.cat(values) for name, values in parts.items()}


def named(given: dict[str, Any]) -> dict[str, Tensor]:
    """Conditions as tensors of a file."""
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"The condition {name} of the data is {type(value).__name__}, but beside latents "
                "conditions are tensors."
            )
    return {f"given.{name}": value for name, value in given.items()}


def scaled(tensors: dict[str, Tensor], latent: Latent, data: Any) -> Encoded:
    """The data set of a coder's own means and standard deviations."""
    shift, scale = latent.like(tensors["mean"])
    given = {k.removeprefix("given."): v for k, v in tensors.items() if k.startswith("given.")}
    classes = int(getattr(data, "classes", 0))
    if not classes and "y" in given:  # an array without labels says 0 of all
        given = {name: value for name, value in given.items() if name != "y"}
    names = tuple(getattr(data, "names", ()))
    mean, std = (tensors["mean"] - shift) * scale, tensors["std"] * scale
    return Encoded(mean, std, given, classes, names)


def described(data: Any) -> dict[str, Any]:
    """Of a data set what tells it from another: how many items, and the first and the last."""
    data = plain(data)
    if not hasattr(data, "__len__") or not len(data):
        return {}
    ends = hashlib.sha256()
    for i in (0, len(data) - 1):
        x, _ = split(torch.utils.data.default_collate([data[i]]))
        ends.update(x.contiguous().cpu().numpy().tobytes())
    return {"n": len(data), "ends": ends.hexdigest()[:16]}


def digest(coder: Any) -> str:
    """A coder's weights in a few letters; ValueError for what has none to tell it by."""
    if not isinstance(coder, nn.Module):
        raise ValueError(
            f"A file of latents is known by its coder's weights, but {type(coder).__name__} is no "
            "nn.Module: leave path out."
        )
    hashed = hashlib.sha256(type(coder).__name__.encode())
    for name, tensor in coder.state_dict().items():
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        hashed.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()[:16]
