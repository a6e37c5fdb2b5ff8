"""What spoils data, by the task that mends it: what a restoring model is trained beside and told.

One network and one loss for all, a degradation for each task: Palette.  Saharia et al. (2022b).
Those that are linear have the operator A whose A x0 they show, by which a model that was never
trained for the task restores too (``Known``, ``Observed``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.checks import number, one_of, whole
from sdegen.data import from_uint8, to_uint8
from sdegen.guidance import Average, Gray, Mask, Operator
from sdegen.sampling.stages import noised


class Degraded(NamedTuple):
    """What is seen of data: a condition c (b, k, *space), and the hole (b, 1, *space), true where
    nothing is known; None where something is known everywhere."""

    c: Tensor
    hole: Tensor | None


class Augmented(NamedTuple):
    """What is seen of data through noise: ``Degraded``, and how much there is in c, (b,), which a
    model is told as the number ``augment``."""

    c: Tensor
    hole: Tensor | None
    augment: Tensor


class Degradation(ABC):
    """Data x0 (b, channels, *space) -> what is seen of it.

    What is random is drawn for each sample, from a generator on x0's device or torch's own.
    """

    @abstractmethod
    def __call__(
        self, x0: Tensor, generator: torch.Generator | None = None
    ) -> Degraded | Augmented:
        """The condition and the hole; ValueError for data that cannot be spoilt so."""

    def beside(self, channels: int) -> int:
        """The channels k of the condition of data of so many."""
        return channels

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numbers that a model is told beside it."""
        return ()

    @property
    def free(self) -> tuple[str, ...]:
        """Settings that are a sample's alone, and may differ from those of the training."""
        return ()

    @abstractmethod
    def operator(self, x0: Tensor, hole: Tensor | None) -> Operator | None:
        """A, where what is seen is A x0 and no more; None where it is not linear."""


@dataclass(frozen=True)
class Colorize(Degradation):
    """The mean over channels: colourisation."""

    def __call__(self, x0: Tensor, generator: torch.Generator | None = None) -> Degraded:
        """(b, 1, *space)."""
        with_space(x0, "Colorize")
        if x0.shape[1] == 1:
            raise ValueError(
                "Colorize takes colours away, but the data are grey already: shape "
                f"{tuple(x0.shape)}."
            )
        return Degraded(self.operator(x0, None)(x0), None)

    def beside(self, channels: int) -> int:
        """One."""
        return 1

    def operator(self, x0: Tensor, hole: Tensor | None) -> Operator:
        """The mean."""
        return Gray(x0.shape[1])


PLACES = {"centre": False, "random": True}
"""Where a box lies, and whether that is drawn."""


@dataclass(frozen=True)
class Inpaint(Degradation):
    """A box is unknown, and N(0, 1) in the condition: inpainting.

    size:  its sides, as a share of the data's, between 0 and 1.
    place: "centre", or "random", drawn for each sample.
    """

    size: float = 0.5
    place: str = "centre"

    def __post_init__(self) -> None:
        share("The size of a hole", self.size, 1)
        one_of(self.place, "place of a hole", PLACES)

    def __call__(self, x0: Tensor, generator: torch.Generator | None = None) -> Degraded:
        """(b, channels, *space), and the box."""
        with_space(x0, "Inpaint")
        sides = [round(self.size * side) for side in x0.shape[2:]]
        if not all(0 < s < side for s, side in zip(sides, x0.shape[2:], strict=True)):
            raise ValueError(
                f"A hole of {self.size:g} of {tuple(x0.shape[2:])} has sides {tuple(sides)}: "
                "none may be 0, or all there is."
            )
        b, free = len(x0), [n - s for s, n in zip(sides, x0.shape[2:], strict=True)]
        if one_of(self.place, "place of a hole", PLACES):
            u = torch.rand(len(free), b, generator=generator, device=x0.device)
            first = [(each * (n + 1)).long().clamp(max=n) for each, n in zip(u, free, strict=True)]
        else:
            first = [torch.full((b,), n // 2, device=x0.device) for n in free]
        return unknown(x0, box(x0, first, sides), generator)

    def operator(self, x0: Tensor, hole: Tensor | None) -> Operator:
        """What lies outside."""
        assert hole is not None
        return Mask(~hole)


@dataclass(frozen=True)
class Uncrop(Degradation):
    """All around a border is unknown, and N(0, 1) in the condition: uncropping.

    border: its width on every side, as a share of the data's sides, between 0 and 1/2.
    """

    border: float = 0.25

    def __post_init__(self) -> None:
        share("Uncrop's border", self.border, 0.5)

    def __call__(self, x0: Tensor, generator: torch.Generator | None = None) -> Degraded:
        """(b, channels, *space), and the border."""
        with_space(x0, "Uncrop")
        widths = [round(self.border * side) for side in x0.shape[2:]]
        inner = [side - 2 * w for w, side in zip(widths, x0.shape[2:], strict=True)]
        if min(*widths, *inner) < 1:
            raise ValueError(
                f"A border of {self.border:g} of {tuple(x0.shape[2:])} is {tuple(widths)} wide: "
                "it must be 1 at least, and leave something within."
            )
        first = [torch.full((len(x0),), w, device=x0.device) for w in widths]
        return unknown(x0, ~box(x0, first, inner), generator)

    def operator(self, x0: Tensor, hole: Tensor | None) -> Operator:
        """What lies within."""
        assert hole is not None
        return Mask(~hole)


@dataclass(frozen=True)
class JPEG(Degradation):
    """Images in [-1, 1] through JPEG, of a quality drawn for each sample: artefacts.

    low, high: the least and the best quality, of Pillow's 1 to 95. The codec works on the host,
    which waits for data that are elsewhere.
    """

    low: int = 5
    high: int = 30

    def __post_init__(self) -> None:
        whole("JPEG's low", self.low, 1, 95), whole("JPEG's high", self.high, self.low, 95)

    def __call__(self, x0: Tensor, generator: torch.Generator | None = None) -> Degraded:
        """(b, channels, h, w); ValueError without Pillow, and for what is no image."""
        as_images(x0, "JPEG")
        if x0.shape[1] not in (1, 3):
            raise ValueError(
                f"JPEG is of images of 1 or 3 channels, but data are {tuple(x0.shape)}."
            )
        low, high = self.low, self.high + 1
        drawn = torch.randint(low, high, (len(x0),), generator=generator, device=x0.device)
        pairs = zip(to_uint8(x0.detach()).cpu(), drawn.tolist(), strict=True)
        seen = torch.stack([through_jpeg(image, quality) for image, quality in pairs])
        return Degraded(from_uint8(seen).to(x0), None)

    def operator(self, x0: Tensor, hole: Tensor | None) -> None:
        """There is none."""


@dataclass(frozen=True)
class Superresolve(Degradation):
    """The means of squares of k x k pixels, each on its square again: super-resolution.

        c = sqrt(1 - s^2) A^+ A x0 + s z,        s ~ U(0, augment)

    augment: the most noise in c, of whose s a model is told by the number ``augment``; 0 for none.
             With it a model bears what another one makes of small images, in a cascade: Ho et al.
             (2022); Saharia et al. (2022), section 2.4.
    level:   s of every sample, as for sampling; None draws them.
    """

    k: int = 2
    augment: float = 0.0
    level: float | None = None

    def __post_init__(self) -> None:
        whole("Superresolve's k", self.k, 2)
        if not 0 <= number("Superresolve's augment", self.augment) <= 1:
            raise ValueError(f"Superresolve's augment lies in [0, 1], not at {self.augment!r}.")
        if self.level is not None and not 0 <= number("level", self.level) <= self.augment:
            raise ValueError(
                f"Superresolve's level lies in [0, augment = {self.augment:g}], the noise that a "
                f"model is trained with, but it is {self.level!r}."
            )

    @property
    def numbers(self) -> tuple[str, ...]:
        """``augment``, where there may be noise."""
        return ("augment",) if self.augment else ()

    @property
    def free(self) -> tuple[str, ...]:
        """``level``."""
        return ("level",)

    def __call__(
        self, x0: Tensor, generator: torch.Generator | None = None
    ) -> Degraded | Augmented:
        """(b, channels, h, w); with noise s (b,) too."""
        as_images(x0, "Superresolve")
        A = Average(self.k)
        c = A.pinv(A(x0))
        if not self.augment:
            return Degraded(c, None)
        s = self.augment * torch.rand(len(x0), generator=generator, device=x0.device)
        z = torch.randn(c.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        s = s if self.level is None else torch.full_like(s, self.level)
        return Augmented(noised(c, s, z), None, s)

    def operator(self, x0: Tensor, hole: Tensor | None) -> Operator | None:
        """The means; None where there is noise."""
        return None if self.augment else Average(self.k)


def share(name: str, value: float, below: float) -> None:
    """ValueError for a share that is not in (0, below)."""
    if not 0 < number(name, value) < below:
        raise ValueError(f"{name} lies in (0, {below:g}), but it is {value!r}.")


def with_space(x0: Tensor, who: str) -> None:
    """ValueError for data without an axis beside channels."""
    if x0.ndim < 3:
        raise ValueError(
            f"{who} is of data (b, channels, *space), as images are, but they are "
            f"{tuple(x0.shape)}."
        )


def as_images(x0: Tensor, who: str) -> None:
    """ValueError for data that are no images."""
    if x0.ndim != 4:
        raise ValueError(
            f"{who} is of images (b, channels, h, w), but data are {tuple(x0.shape)}."
        )


def box(x0: Tensor, first: list[Tensor], sides: list[int]) -> Tensor:
    """A box in space for each sample, (b, 1, *space): where it begins (b,), and its sides."""
    inside = torch.ones(len(x0), 1, *x0.shape[2:], dtype=torch.bool, device=x0.device)
    for i, (begin, side) in enumerate(zip(first, sides, strict=True)):
        places = torch.arange(x0.shape[2 + i], device=x0.device)
        along = (places >= begin[:, None]) & (places < begin[:, None] + side)
        shape = [len(x0), *[1] * (x0.ndim - 1)]
        shape[2 + i] = -1
        inside = inside & along.reshape(shape)
    return inside


def unknown(x0: Tensor, hole: Tensor, generator: torch.Generator | None) -> Degraded:
    """Data with noise in a hole."""
    z = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    return Degraded(torch.where(hole, z, x0), hole)


def through_jpeg(image: Tensor, quality: int) -> Tensor:
    """Bytes (channels, h, w) coded and decoded."""
    try:
        from PIL import Image
    except ImportError:
        raise ValueError(
            "JPEG is coded by Pillow, which is not installed: pip install pillow."
        ) from None
    import numpy as np

    grey = len(image) == 1
    pixels = image[0].numpy() if grey else image.permute(1, 2, 0).contiguous().numpy()
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    file.seek(0)
    with Image.open(file) as found:
        decoded = torch.from_numpy(np.array(found))
    return decoded[None] if grey else decoded.permute(2, 0, 1)
