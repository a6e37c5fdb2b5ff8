"""Restoring: what a task shows of images, models that are told it, and what came out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen.data import ArrayData, gather
from sdegen.data.parts import part
from sdegen.data.sampler import seed_of
from sdegen.files import read_tensors
from sdegen.guidance import Average, Known, Operator
from sdegen.losses import Augmented, Degradation, Superresolve
from sdegen.metrics.restored import Restored
from sdegen.runs.folder import given_labels
from sdegen.runs.pictures import drawable, frames
from sdegen.runs.telling import Prompts, understood
from sdegen.text import Encoder

DRAWS = 16
"""Samples of each image that is restored."""


@dataclass(frozen=True)
class Seen:
    """What a task shows of images x0 (m, *), which is the same whatever their number: labels y
    (m,) where they have some; a condition c (m, k, *), a hole (m, 1, *), the noise in c (m,), and
    the operator; and what the images' captions say."""

    x0: Tensor
    y: Tensor | None
    c: Tensor
    hole: Tensor | None
    A: Operator | None
    augment: Tensor | None = None
    said: Prompts | None = None

    @classmethod
    def of(cls, task: Degradation, images: ArrayData, seed: int = 0) -> Seen:
        """Of each image what a generator of its own draws."""
        x0 = images.x
        parts = [
            task(x0[i : i + 1], torch.Generator().manual_seed(seed_of(seed, i)))
            for i in range(len(x0))
        ]
        c = torch.cat([part.c for part in parts])
        holes = [part.hole for part in parts if part.hole is not None]
        hole = torch.cat(holes) if holes else None
        noise = [part.augment for part in parts if isinstance(part, Augmented)]
        A, augment = task.operator(x0, hole), torch.cat(noise) if noise else None
        return cls(x0, images.y if images.classes else None, c, hole, A, augment)

    def told(self, model: Any, at: Tensor) -> Any:
        """The model that was trained beside a condition, told what is seen of the images of some
        places (b,)."""
        told = {"c": self.c} if self.augment is None else {"c": self.c, "augment": self.augment}
        return model.given(**{name: value[at].to(model.device) for name, value in told.items()})

    def measured(self, std: float) -> Tensor:
        """A x0 + std z, the same z for an image whatever their number."""
        assert self.A is not None
        y = self.A(self.x0)
        for i in range(len(y) if std else 0):
            z = torch.randn(y[i].shape, generator=torch.Generator().manual_seed(seed_of(1, i)))
            y[i] += std * z
        return y

    def through(self, std: float) -> Seen:
        """The same, with A^+ (A x0 + std z) as the condition: what an observation knows."""
        assert self.A is not None
        return replace(self, c=self.A.pinv(self.measured(std)))

    @property
    def picture(self) -> Tensor:
        """What is seen, as images."""
        return self.c.expand_as(self.x0)


def prepared(model: Any, n: int, counts: list[int], some: Seen | Prompts | None) -> Any:
    """A model of a run, for n samples: with labels in the shares of the data's classes, or what
    captions say, in turn, and of one that restores with what is shown of n images, in turn, and
    their labels and captions.

    Around a hole it is told the image itself: it was trained on what is in the hole alone.
    """
    if some is None:
        return given_labels(model, n, counts)
    if isinstance(some, Prompts):
        return some.given(model, n)
    at = torch.arange(n) % len(some.x0)
    model = some.told(model, at)
    if some.said is not None:
        model = some.said.given(model, n)
    if counts and some.y is not None:
        model = model.given(y=some.y[at].to(model.device))
    else:
        model = given_labels(model, n, counts)
    return model if some.hole is None else told_hole(some)(model, at)


def seen_of(
    task: Degradation | None, data: Any, n: int, encoder: Encoder | None = None
) -> Seen | None:
    """What a run's task shows of n images of a data set at most, and what their captions say; None
    of a run without one.

    ValueError where an encoder can tell no caption of theirs.
    """
    if task is None or encoder is None:
        return None if task is None else Seen.of(task, gather(data, n))
    images = gather(data, n)
    known = understood(encoder, images.captions)
    told = torch.tensor([i for i, each in enumerate(images.captions) if each in known])
    if not len(told):
        raise ValueError(
            "No caption of the held-out data can be told: all have words that no training caption "
            "has, or are too long."
        )
    some = part(images, told)
    return replace(Seen.of(task, some), said=Prompts.of(encoder, some.captions))


Told = Callable[[Any, Tensor], Any]
"""(model, places of images (b,)) -> the model that is told what is seen of these."""


def told_hole(some: Seen) -> Told:
    """By what is known around a hole.  Song et al. (2021), app. I.2."""

    def told(model: Any, at: Tensor) -> Any:
        assert some.hole is not None
        return Known(model, some.x0[at], ~some.hole[at])

    return told


def told_by(observation: Any, some: Seen, std: float) -> Told:
    """By y = A x0 + std z, as (model, y, A) -> model has it."""
    y, A = some.measured(std), some.A
    assert A is not None

    def told(model: Any, at: Tensor) -> Any:
        return observation(model, y[at], A.take(at))

    return told


def with_known(x: Tensor, some: Seen, at: Tensor) -> Tensor:
    """Samples in which what is known is what it was: a walk ends with the noise of t_min. Of a
    linear task without a hole x + A^+ (A x0 - A x)."""
    x0 = some.x0[at].to(x)
    if some.hole is None:
        if some.A is None:
            return x
        A = some.A.take(at)
        return x + A.pinv(A(x0) - A(x))
    lost = ~x.isfinite().reshape(len(x), -1).all(1).reshape(-1, *[1] * (x.ndim - 1))
    return torch.where(some.hole[at].to(x.device) | lost, x, x0)


def restored(x: Tensor, some: Seen, draws: int) -> Restored | None:
    """What samples (m draws, *) of m images are worth beside them; None where none arrived."""
    each = x.unflatten(0, (-1, draws)).cpu()
    m = len(each)
    whole = each.reshape(m, -1).isfinite().all(1)
    if not whole.any():
        return None
    hole = None if some.hole is None else some.hole[:m][whole]
    seen = some.picture[:m][whole] if hole is None else None
    return Restored.of(some.x0[:m][whole], each[whole], hole, seen, some.A)


def draw(
    path: Path,
    title: str,
    x0: Tensor | None,
    columns: Mapping[str, Tensor],
    most: int = 10,
    first: str = "original",
) -> None:
    """Images in rows: themselves, if there are some, and what became of them in named columns
    (m, *)."""
    from sdegen.plots import save_samples, save_trajectory

    every = dict(columns) if x0 is None else {first: x0, **columns}
    some = next(iter(every.values()))
    if not drawable(some) or some.ndim not in (4, 5):
        return
    if some.ndim == 5:  # of the first two clips, all frames in rows
        rows = [
            (f"{name}, {k + 1}", x[k]) for k in range(len(some))[:2] for name, x in every.items()
        ]
        names = [name for name, x in rows for _ in range(x.shape[1])]
        shown = frames(torch.stack([x for _, x in rows])).float().cpu().clamp(-1, 1)
        save_samples(shown, path, title, some.shape[2], names)
        return
    states = torch.stack([each[:most].float().cpu().clamp(-1, 1) for each in every.values()])
    save_trajectory(states, list(every), path, title)


def columns_of(x: Tensor, some: Seen | None, draws: int) -> dict[str, Tensor]:
    """What was seen of each image, three samples, and the mean of all."""
    each = x.unflatten(0, (-1, draws)).cpu()
    found = {} if some is None else {"seen": some.picture[: len(each)]}
    found |= {
        f"sample {k + 1}" if draws > 1 else "sample": each[:, k] for k in range(min(3, draws))
    }
    return found | ({f"mean of {draws}": each.mean(1)} if some and draws > 1 else {})


def images_in(path: Path) -> Tensor:
    """The image of a PNG or JPEG file, or those of a .npy, .npz or samples.safetensors, (m, *).

    ValueError for a missing or damaged file.
    """
    from sdegen.data import from_file

    if path.suffix.lower() in (".npy", ".npz"):
        return from_file(path).x
    if path.suffix.lower() == ".safetensors":
        return samples_in(path)
    return pixels_of(path)[None]


def as_shown(x: Tensor, shape: Sequence[int], path: Path, task: Degradation | None) -> Tensor:
    """Images x of a file as data of a run's shape: themselves, one alone, or, where they are as
    small as ``superresolve`` makes them, images that it would make these of.

    ValueError for another shape.
    """
    if list(x.shape) == list(shape):
        return x[None]
    if isinstance(task, Superresolve) and x.ndim in (3, 4):
        lifted = Average(task.k).pinv(x if x.ndim == 4 else x[None])
        x = lifted if list(lifted.shape[1:]) == list(shape) else x
    if list(x.shape[1:]) != list(shape):
        raise ValueError(
            f"image={path} has the shape {tuple(x.shape[1:])}, but the run's samples are "
            f"{tuple(shape)} (channels first): resize or convert it."
        )
    return x


def samples_in(path: Path) -> Tensor:
    """The samples that ``sdegen-sample`` has made; ValueError for another file."""
    tensors, _ = read_tensors(path)
    if "x" not in tensors:
        raise ValueError(
            f"image={path} holds {', '.join(tensors) or 'nothing'}, and no samples x of a run."
        )
    return tensors["x"]


def pixels_of(path: Path) -> Tensor:
    """An image file as (channels, h, w) in [-1, 1], of 8 bits, grey or RGB."""
    from sdegen.data import from_uint8
    from sdegen.data.files import reading

    if not path.is_file():
        raise ValueError(f"There is no image {path}: give image=FILE, a PNG, JPEG, .npy or .npz.")
    import numpy as np
    from PIL import Image, ImageOps

    with reading(path, "is it damaged, or no image?"), Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode not in ("L", "RGB"):
        raise ValueError(
            f"image={path} is of mode {image.mode}: convert it to 8-bit grey (L) or to RGB."
        )
    bytes_ = torch.from_numpy(np.array(image))
    return from_uint8(bytes_[None] if bytes_.ndim == 2 else bytes_.permute(2, 0, 1))
