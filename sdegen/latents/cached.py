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
from sdegen.data.items import batched, split
from sdegen.files import read_header, read_tensors, write_tensors
from sdegen.latents.coding import Latent, posteriors


class Encoded(Dataset[Any]):
    """States (z - shift) scale of z ~ q(z | x), for every x of a data set.

    latent: whose shift and scale.  mean, std: of q, (n, channels, *), the coder's own, on the CPU.
    given:  conditions (n, ...) by name.  classes, names: of the labels y.

    An item is (z, y), (z, {name: condition}) or z alone, as the data's were. z is drawn from
    torch's generator: afresh in every epoch, and by ``SeededItems`` the same in a run that goes
    on. ``plain`` is one draw of each, always the same.
    """

    levels = 0

    def __init__(
        self,
        latent: Latent,
        mean: Tensor,
        std: Tensor,
        given: dict[str, Tensor] | None = None,
        classes: int = 0,
        names: tuple[str, ...] = (),
    ) -> None:
        self.latent, self.mean, self.std, self.given = latent, mean, std, given or {}
        self.classes, self.names = classes, names
        self.shape = tuple(mean.shape[1:])
        y = self.given.get("y")
        self.y = torch.zeros(len(mean), dtype=torch.int64) if y is None else y
        shift, scale = latent.like(mean)
        self.shift, self.scale = shift.cpu()[None], scale.cpu()[None]

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, i: int) -> Any:
        mean = self.mean[i : i + 1] if i >= 0 else self.mean[i:][:1]
        z = (mean + self.std[i] * torch.randn(mean.shape) - self.shift) * self.scale
        given = {name: value[i] for name, value in self.given.items()}
        if not given:
            return z[0]
        return (z[0], given["y"]) if list(given) == ["y"] else (z[0], given)

    @property
    def plain(self) -> Dataset[Any]:
        """The same with a draw that is always the same."""
        noise = torch.randn(self.mean.shape, generator=torch.Generator().manual_seed(0))
        z = self.mean + self.std * noise
        if set(self.given) <= {"y"}:
            y = self.y if self.classes else None
            return ArrayData((z - self.shift) * self.scale, y, 0, self.names)
        still = torch.zeros_like(z)
        return Encoded(self.latent, z, still, self.given, self.classes, self.names)

    def write(self, path: Path, data: Any) -> None:
        """Means, standard deviations and conditions of these data in a file, atomically."""
        given = {f"given.{name}": value for name, value in self.given.items()}
        tensors = {"mean": self.mean, "std": self.std, **given}
        write_tensors(path, tensors, about(self.latent, data))


def encoded(data: Any, latent: Latent, path: Path | None = None, batch: int = 256) -> Encoded:
    """The latents of a data set, its labels and other conditions beside them.

    path: a file in which means and standard deviations are kept, written once and whole; they are
    the coder's own, so that another scale does not make another file. What the data draw for each
    epoch anew, flips and crops, is left out.

    ValueError for a file of another coder or of other data, for conditions that are not tensors,
    for a scale of other channels than the latents have, and for a stream.
    """
    if path is not None and path.is_file():
        found = read_header(path)
        for name, value in about(latent, data).items():
            if found.get(name) != value:
                what = "coder" if name == "coder" else "data set"
                raise ValueError(
                    f"The latents {path} are of another {what}: delete them, or keep these in "
                    "another file."
                )
        return of_tensors(read_tensors(path)[0], latent, data)
    made = of_tensors(everything(latent, data, batch), latent, data)
    if path is not None:
        made.write(path, data)
    return made


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


def of_tensors(tensors: dict[str, Tensor], latent: Latent, data: Any) -> Encoded:
    """The data set of a file's tensors."""
    given = {k.removeprefix("given."): v for k, v in tensors.items() if k.startswith("given.")}
    classes = int(getattr(data, "classes", 0))
    if not classes:  # an array without labels says 0 of all
        given.pop("y", None)
    names = tuple(getattr(data, "names", ()))
    return Encoded(latent, tensors["mean"], tensors["std"], given, classes, names)


def about(latent: Latent, data: Any) -> dict[str, Any]:
    """What a file of latents says that it is of."""
    return {"coder": digest(latent.coder), **described(data)}


def described(data: Any, batch: int = 256) -> dict[str, Any]:
    """Of a data set what tells it from another: how many items, and all of them with their
    conditions, in a few letters."""
    data = plain(data)
    hashed = hashlib.sha256()
    for first in range(0, len(data), batch):
        items = [data[i] for i in range(first, min(first + batch, len(data)))]
        x, given = split(batched(items))
        for name, value in {"x": x, **named(given)}.items():
            hashed.update(name.encode() + bytes_of(value))
    return {"n": len(data), "items": hashed.hexdigest()[:16]}


def bytes_of(tensor: Tensor) -> bytes:
    """Its type, shape and values."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    told = f"{tensor.dtype}{tuple(tensor.shape)}".encode()
    return told + flat.view(torch.uint8).numpy().tobytes()


def digest(coder: Any) -> str:
    """A coder's weights in a few letters; ValueError for what has none to tell it by."""
    if not isinstance(coder, nn.Module):
        raise ValueError(
            f"A file of latents is known by its coder's weights, but {type(coder).__name__} is no "
            "nn.Module: leave path out."
        )
    hashed = hashlib.sha256(type(coder).__name__.encode())
    for name, tensor in coder.state_dict().items():
        hashed.update(name.encode() + bytes_of(tensor))
    return hashed.hexdigest()[:16]
