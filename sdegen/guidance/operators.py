"""Linear measurements of a state: A, its adjoint T and its pseudo-inverse."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sdegen.checks import number, whole
from sdegen.guidance.wrapped import fits


class Operator(ABC):
    """A linear map of states (b, *) to measurements (b, *): <A x, y> = <x, T y>.

    ``pinv`` is Moore and Penrose's, A pinv A = A.
    """

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A x."""

    @abstractmethod
    def T(self, y: Tensor) -> Tensor:
        """A^T y."""

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y."""

    def take(self, index: Tensor) -> Operator:
        """That of some samples of the batch: itself, unless it differs between samples."""
        return self


@dataclass(frozen=True, eq=False)
class Mask(Operator):
    """What a mask leaves, zero elsewhere: booleans (1, *) for all samples, (b, *) for each."""

    mask: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.mask, Tensor) or self.mask.dtype is not torch.bool:
            said = getattr(self.mask, "dtype", repr(self.mask))
            raise ValueError(f"A mask is boolean, true where it is seen, but it is {said}.")

    def take(self, index: Tensor) -> Mask:
        """Of some samples."""
        return self if len(self.mask) == 1 else Mask(self.mask[index.to(self.mask.device)])

    def __call__(self, x: Tensor) -> Tensor:
        """The part that is seen; ValueError for a mask without the batch's axis."""
        return x * fits(self.mask, x, "A mask").to(x)

    def T(self, y: Tensor) -> Tensor:
        """A projection is its own."""
        return self(y)

    def pinv(self, y: Tensor) -> Tensor:
        """And its own."""
        return self(y)


@dataclass(frozen=True)
class Average(Operator):
    """The mean over squares of k x k of the last two axes: super-resolution by k."""

    k: int

    def __post_init__(self) -> None:
        whole("Average's k", self.k)

    def __call__(self, x: Tensor) -> Tensor:
        """(b, *, h, w) to (b, *, h / k, w / k); ValueError where k divides them not."""
        h, w = sides(x, "Average")
        if h % self.k or w % self.k:
            raise ValueError(
                f"Average({self.k}) takes sides that {self.k} divides, not {h} x {w}."
            )
        return x.reshape(*x.shape[:-2], h // self.k, self.k, w // self.k, self.k).mean((-3, -1))

    def T(self, y: Tensor) -> Tensor:
        """Each value on its square, over k^2."""
        return self.pinv(y) / self.k**2

    def pinv(self, y: Tensor) -> Tensor:
        """Each value on its square."""
        return y.repeat_interleave(self.k, -2).repeat_interleave(self.k, -1)


@dataclass(frozen=True)
class Gray(Operator):
    """The mean over so many channels of axis 1: colourisation."""

    channels: int = 3

    def __call__(self, x: Tensor) -> Tensor:
        """(b, c, *) to (b, 1, *)."""
        if x.ndim < 2 or x.shape[1] != self.channels:
            raise ValueError(f"Gray({self.channels}) has other channels than {tuple(x.shape)}.")
        return x.mean(1, keepdim=True)

    def T(self, y: Tensor) -> Tensor:
        """A channel's share."""
        return self.pinv(y) / self.channels

    def pinv(self, y: Tensor) -> Tensor:
        """Every channel grey."""
        return y.expand(-1, self.channels, *y.shape[2:])


@dataclass(frozen=True, eq=False)
class Blur(Operator):
    """Convolution of the last two axes with a kernel (p, q), periodic, about its middle."""

    kernel: Tensor

    def __post_init__(self) -> None:
        kernel = self.kernel
        fine = isinstance(kernel, Tensor) and kernel.ndim == 2 and kernel.is_floating_point()
        if not fine or not bool(kernel.isfinite().all()):
            said = tuple(kernel.shape) if isinstance(kernel, Tensor) else repr(kernel)
            raise ValueError(f"A kernel is of finite numbers (p, q), but it is {said}.")

    def spectrum(self, x: Tensor) -> Tensor:
        """The kernel's transform on a state's frequencies."""
        h, w = sides(x, "Blur")
        p, q = self.kernel.shape
        if p > h or q > w:
            raise ValueError(f"A kernel of {p} x {q} is larger than states of {h} x {w}.")
        padded = F.pad(self.kernel.to(x), (0, w - q, 0, h - p))
        return torch.fft.fft2(padded.roll((-(p // 2), -(q // 2)), (0, 1)))

    def by(self, x: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
        """A filter made of the kernel's transform, applied."""
        wide = x if x.element_size() >= 4 else x.float()
        return torch.fft.ifft2(torch.fft.fft2(wide) * factor(self.spectrum(wide))).real.to(x)

    def __call__(self, x: Tensor) -> Tensor:
        """Blurred."""
        return self.by(x, lambda k: k)

    def T(self, y: Tensor) -> Tensor:
        """Correlation."""
        return self.by(y, torch.conj)

    def pinv(self, y: Tensor) -> Tensor:
        """Divided by, where the kernel leaves anything."""
        return self.by(y, inverted)


def sides(x: Tensor, who: str) -> tuple[int, int]:
    """The last two axes; ValueError where one of them is the batch's."""
    if x.ndim < 3:
        raise ValueError(f"{who} is of images (b, *, h, w), but states are {tuple(x.shape)}.")
    return x.shape[-2], x.shape[-1]


def inverted(k: Tensor) -> Tensor:
    """1 / k where k is not 0 but for rounding, else 0."""
    size = k.abs()
    least = size.max() * torch.finfo(size.dtype).eps * size.numel()
    return torch.where(size > least, 1 / torch.where(size > least, k, 1), 0)


@dataclass(frozen=True, eq=False)
class Fourier(Operator):
    """The orthonormal transform of the last two axes where a mask (h, w) is true, else zero.

    Complex numbers are two on a last axis: (b, *, h, w, 2).
    """

    mask: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The frequencies that are seen; ValueError for states of other sides than the mask."""
        if sides(x, "Fourier") != tuple(self.mask.shape):
            raise ValueError(
                f"Fourier's mask is {tuple(self.mask.shape)}, but states are {tuple(x.shape)}: it "
                "is of their last two axes."
            )
        wide = x if x.element_size() >= 4 else x.float()
        found = torch.fft.fft2(wide, norm="ortho") * self.mask.to(wide)
        return torch.view_as_real(found).to(x)

    def T(self, y: Tensor) -> Tensor:
        """The real part of the inverse transform."""
        wide = y if y.element_size() >= 4 else y.float()
        seen = torch.view_as_complex(wide.contiguous()) * self.mask.to(wide)
        return torch.fft.ifft2(seen, norm="ortho").real.to(y)

    def pinv(self, y: Tensor) -> Tensor:
        """T, with frequencies of which one of a pair (k, -k) is seen twice as large."""
        wide = y if y.element_size() >= 4 else y.float()
        mask = self.mask.to(wide)
        opposite = mask.flip((0, 1)).roll((1, 1), (0, 1))
        seen = inverted((mask + opposite) / 2)
        return torch.fft.ifft2(torch.fft.fft2(self.T(wide)) * seen).real.to(y)


@dataclass(frozen=True)
class Radon(Operator):
    """Sums along lines of square images (b, *, n, n) at angles in degrees: (b, *, angles, n).

    Values between pixels by bilinear interpolation, zero outside. ``iterations``: of conjugate
    gradients in ``pinv``.
    """

    angles: Sequence[float]
    iterations: int = 500

    def __post_init__(self) -> None:
        many = not isinstance(self.angles, str) and hasattr(self.angles, "__len__")
        if not many or not len(self.angles):
            raise ValueError(f"Radon takes angles in degrees, one at least, not {self.angles!r}.")
        for each in self.angles:
            number("Radon's angle", each.item() if isinstance(each, Tensor) else each)
        whole("Radon's iterations", self.iterations)

    def __call__(self, x: Tensor) -> Tensor:
        """Projections."""
        m, n = sides(x, "Radon")
        if m != n:
            raise ValueError(f"Radon takes square images, not {tuple(x.shape[-2:])}.")
        flat = x.reshape(-1, 1, n, n)
        rows = []
        for angle in self.angles:
            c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            # Of numbers in kernels: a tensor made on the host would be waited for.
            turn = torch.stack([x.new_full((), k) for k in (c, -s, 0.0, s, c, 0.0)])
            turn = turn.reshape(2, 3).expand(len(flat), 2, 3)
            grid = F.affine_grid(turn, list(flat.shape), align_corners=False)
            rows.append(F.grid_sample(flat, grid, align_corners=False).sum(2))
        return torch.stack(rows, -2).reshape(*x.shape[:-2], len(self.angles), n)

    def T(self, y: Tensor) -> Tensor:
        """Smeared back: the derivative of <A x, y>."""
        n, outer = y.shape[-1], torch.is_grad_enabled() and y.requires_grad
        with torch.inference_mode(False), torch.enable_grad():
            x = y.new_zeros(*y.shape[:-2], n, n).requires_grad_()
            u = y.clone() if y.is_inference() else y
            (back,) = torch.autograd.grad(self(x), x, u, create_graph=outer)
        return back

    def pinv(self, y: Tensor) -> Tensor:
        """T (A T)^+ y, by conjugate gradients."""
        w, _ = conjugate_gradients(lambda u: self(self.T(u)), y, self.iterations)
        return self.T(w)


def conjugate_gradients(
    M: Callable[[Tensor], Tensor], y: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """w (b, *) with M w = y, each sample by itself, for M = M^T >= 0, and |y - M w| / |y| (b,).

    So many iterations whatever they find: nothing is read back, and a sample that is done stays.
    """
    axes = tuple(range(1, y.ndim))

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(axes, keepdim=True)

    def over(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(b > 0, a / torch.where(b > 0, b, 1), 0)

    w, r = torch.zeros_like(y), y
    p, size = r, dot(r, r)
    for _ in range(iterations):
        Mp = M(p)
        a = over(size, dot(p, Mp))
        w, r = w + a * p, r - a * Mp
        p, size = r + over(dot(r, r), size) * p, dot(r, r)
    return w, over(size, dot(y, y)).sqrt().flatten()
