"""A Brownian path as a source of noise: the same for every step size and order of queries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sdegen.noise.hashing import GOLDEN, pairs, signed
from sdegen.noise.source import Noise, Seeded
from sdegen.sde.level import Instant

DEPTH = 30
"""Halvings of [0, T]: times are told apart to 1e-9 of T."""


Value = tuple[Tensor, Tensor, Tensor]
"""w and INT w, (b, n), at a level, and the time, () or (b, 1), that it stands for."""


class Brownian(Noise):
    """One Brownian motion w(t), 0 <= t <= T, of each sample; a step sees its increment.

    seed: as for ``Seeded``: sample i of the batch has path (seed, first + i), or one seed each.
    T:    of the SDE, whose own time the path runs in.

    A draw for a step from t to s is (w(t) - w(s)) / sqrt(t - s): steps of any length, asked for in
    any order and any batch, are pieces of one path. A step shorter than the resolution has none:
    its draw is zero.

    The path is a tree that is never stored. On an interval of length h, W is the increment and H
    the space-time area, INT w = h (W / 2 + H). Its halves have, with Z of variance h / 16 and N of
    h / 12 that are pure functions of (stream, place in the tree, coordinate),

        W_left = W/2 + 3/2 H + Z,   H_left = H/4 - Z/2 + N/2,   H_right = H/4 - Z/2 - N/2

    (Foster et al. 2020; Jelincic et al. 2024). A query descends through 31 halvings: about fifty
    to a hundred times the cost of ``Seeded``, see benchmarks/noise_cost.json.
    """

    path = True

    def __init__(self, seed: int | Sequence[int], T: float, first: int = 0) -> None:
        if not 0 < T < math.inf:
            raise ValueError(f"A Brownian path runs on [0, T] with T > 0, but T = {T!r}.")
        self.T, self._seeds = float(T), Seeded(seed, first)
        self._index: Tensor | None = None
        self._known: list[tuple[Instant, tuple[object, ...], Value]] = []

    def __call__(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """The increment of the step from t to s, scaled to N(0, I), like x (b, *)."""
        return self._step(x, t, s)[0].reshape(x.shape).to(x.dtype)

    def area(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """The space-time area of the step beside its increment, N(0, I): see ``Noise.area``."""
        return self._step(x, t, s)[1].reshape(x.shape).to(x.dtype)

    def stream(self, name: str) -> Seeded:
        """Draws that are no increments, of the same seeds; "prior" is the same asked again."""
        if self._index is not None:
            raise ValueError("A part of a batch has its path alone, and no other stream.")
        other = self._seeds.stream(name)
        if name == "prior":
            other.rewind()
        return other

    def take(self, index: Tensor) -> Brownian:
        """The paths of some samples of the batch alone, by their places (k,)."""
        part = Brownian(self._seeds.seed, self.T, self._seeds.first)
        part._index = index
        return part

    def _step(self, x: Tensor, t: Instant, s: Instant) -> tuple[Tensor, Tensor]:
        """Increment and area of a step, both (b, n) and N(0, I), in float64."""
        w_t, A_t, u_t = self._value(x, t)
        w_s, A_s, u_s = self._value(x, s)
        h = (u_t - u_s).abs()
        part, sign = torch.where(h > 0, 1 / h, 0).sqrt(), (u_t - u_s).sign()
        h, part, sign = (there(c, x) for c in (h, part, sign))
        z = (w_t - w_s) * part * sign
        # Along the step the motion is w(t) - w(t - theta), and its integral h w(t) - INT w.
        J = (h * w_t - (A_t - A_s)) * part**3
        return z, math.sqrt(3) * (2 * J - z)

    def _value(self, x: Tensor, level: Instant) -> Value:
        """The path at a level; the last two are kept: a march asks for (t, s), then (s, r)."""
        like = (x.shape, x.dtype, x.device)
        for at, kept, value in self._known:
            if at is level and kept == like:
                return value
        value = self._descend(x, level)
        self._known = [*self._known[-1:], (level, like, value)]
        return value

    def _descend(self, x: Tensor, level: Instant) -> Value:
        """From [0, 2 T], halving DEPTH + 1 times towards the level's time.

        w and INT w are linear in the draws on the way, whose coefficients are made first.
        """
        n, dtype = math.prod(x.shape[1:]), x.dtype
        keys = self._keys(len(x), x.device)
        place = (level.t / self.T * 2**DEPTH).round().long()
        place = place.unsqueeze(-1) if place.ndim else place
        u = place.double() * (self.T / 2**DEPTH)
        draws_in = coefficients(place, 2 * self.T)
        place = there(place, x)
        w, A = (x.new_zeros(len(x), n, dtype=torch.float64) for _ in range(2))
        for k in range(DEPTH + 2):
            # Draw 0 is the root's own; the others belong to the nodes that are halved.
            node = (place >> (DEPTH + 2 - k)) + (1 << (k - 1)) if k else torch.zeros_like(place)
            first, second = (z.double() for z in pairs(keys, node * signed(GOLDEN), n, dtype))
            for value, c in zip((w, A), draws_in, strict=True):
                a, b = (there(c[j], x) for j in (2 * k, 2 * k + 1))
                value.add_(first * a).add_(second * b)
        return w, A, u

    def _keys(self, b: int, device: torch.device) -> Tensor:
        """A 64-bit key per sample, (b, 1)."""
        path = self._seeds.stream("path")
        if self._index is None:
            return path.keys(b, device)
        if not isinstance(path.seed, int):
            return path.keys(len(path.seed), device)[self._index]
        return path.keys(int(self._index.max()) + 1, device)[self._index]


def there(c: Tensor, x: Tensor) -> Tensor:
    """A coefficient where the state is; one of no dimension may stay, and synchronises nothing."""
    return c if c.ndim == 0 else c.to(x.device)


def coefficients(place: Tensor, h: float) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Of the draws on the way in w and INT w at a place in a tree on [0, h], each () or (b, 1)."""
    draws = torch.eye(2 * (DEPTH + 2), dtype=torch.float64)
    W, H = math.sqrt(h) * draws[0], math.sqrt(h / 12) * draws[1]
    w, A = torch.zeros_like(W), torch.zeros_like(W)
    for k in range(1, DEPTH + 2):
        Z, N = math.sqrt(h / 16) * draws[2 * k], math.sqrt(h / 12) * draws[2 * k + 1]
        h /= 2
        left, H_left = W / 2 + 1.5 * H + Z, H / 4 - Z / 2 + N / 2
        right = ((place >> (DEPTH + 1 - k)) & 1).bool()
        A = torch.where(right, A + h * (w + left / 2 + H_left), A)
        w = torch.where(right, w + left, w)
        W = torch.where(right, W - left, left)
        H = torch.where(right, H_left - N, H_left)
    if place.ndim == 0:
        return w.unbind(), A.unbind()
    return w.split(1, dim=1), A.split(1, dim=1)
