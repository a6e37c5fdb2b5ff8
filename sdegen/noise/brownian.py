"""A Brownian path as a source of noise: the same for every step size and order of queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from sdegen.noise.hashing import AT_ONCE, GOLDEN, MANY_AT_ONCE, pairs, signed
from sdegen.noise.source import Noise, Seeded
from sdegen.sde.level import Instant

DEPTH = 30
"""Halvings of [0, T]: times are told apart to 1e-9 of T."""


Value = tuple[Tensor, Tensor, Tensor]
"""w and INT w, (b, n), at a level, and the time, () or (b, 1), that it stands for."""

Pair = tuple[Tensor, Tensor]
"""Factors of the two draws of each interval on the way, (DEPTH + 2, 1 or b, 1)."""


class Brownian(Noise):
    """One Brownian motion w(t), 0 <= t <= T, of each sample; a step sees its increment.

    seed, first: as for ``Seeded``: sample i of the batch has path (seed, first + i), or its own.
    T:    of the SDE, whose own time the path runs in.

    ValueError where a walk goes beyond T.

    A draw for a step from t to s is (w(t) - w(s)) / sqrt(t - s): steps of any length, asked for in
    any order and any batch, are pieces of one path. A step shorter than the resolution has none:
    its draw is zero.

    The path is a tree that is never stored. On an interval of length h, W is the increment and H
    the space-time area, INT w = h (W / 2 + H). Its halves have, with Z of variance h / 16 and N of
    h / 12 that are pure functions of (stream, place in the tree, coordinate),

        W_left = W/2 + 3/2 H + Z,   H_left = H/4 - Z/2 + N/2,   H_right = H/4 - Z/2 - N/2

    (Foster et al. 2020; Jelincic et al. 2024), so that w is a sum of coefficients, one or two to a
    draw. A query adds up those of the 31 intervals around its time, see ``coefficients``; what it
    costs beside ``Seeded`` is in benchmarks/noise_cost.json.
    """

    path = True

    def __init__(
        self, seed: int | Sequence[int], T: float, first: int | Sequence[int] = 0
    ) -> None:
        given: Any = T.item() if isinstance(T, Tensor) and not T.ndim else T
        if (
            not isinstance(given, Real)
            or isinstance(given, bool)
            or not 0 < float(given) < math.inf
        ):
            raise ValueError(f"A Brownian path runs on [0, T] with T > 0, but T = {T!r}.")
        self.T = self.end = float(given)
        self._seeds = Seeded(seed, first)
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

    def begun(self) -> Brownian:
        """The same path, whose other streams have drawn nothing yet."""
        other = Brownian(self._seeds.seed, self.T, self._seeds.first)
        other._index = self._index
        return other

    def take(self, index: Tensor) -> Brownian:
        """The paths of some samples of the batch alone, by their places (k,); of a part, by their
        places in it."""
        part = self.begun()
        part._index = index if self._index is None else self._index[index.to(self._index.device)]
        return part

    def _step(self, x: Tensor, t: Instant, s: Instant) -> tuple[Tensor, Tensor]:
        """Increment and area of a step, both (b, n) and N(0, I), in float64."""
        w_t, A_t, u_t = self._value(x, t)
        w_s, A_s, u_s = self._value(x, s)
        h = (u_t - u_s).abs()
        part, sign = torch.where(h > 0, 1 / h, 0).sqrt(), (u_t - u_s).sign()
        h, part, sign = (where_state_is(c, x) for c in (h, part, sign))
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

        w and INT w are linear in the draws on the way, of as many intervals at once as are not too
        many numbers, but added one by one: a sample's bits do not know of its batch.
        """
        b, n = len(x), math.prod(x.shape[1:])
        place = (level.t / self.T * 2**DEPTH).round().long()
        place = place.unsqueeze(-1) if place.ndim else place
        u = place.double() * (self.T / 2**DEPTH)
        place, keys = where_state_is(place, x), self._keys(b, x.device)
        k = torch.arange(DEPTH + 2, device=x.device)[:, None, None]
        # Draw 0 is the root's own; the others belong to the intervals that are halved.
        nodes = ((place >> (DEPTH + 2 - k)) + ((1 << k) >> 1)) * signed(GOLDEN)
        in_w, in_A = coefficients(place, k, 2 * self.T)
        w, A = (x.new_zeros(b, n, dtype=torch.float64) for _ in range(2))
        at_once = max(1, AT_ONCE.get(x.device.type, MANY_AT_ONCE) // max(1, b * n))
        for some in (slice(i, i + at_once) for i in range(0, DEPTH + 2, at_once)):
            numbers = nodes[some].expand(-1, b, 1)
            made = pairs(keys.repeat(len(numbers), 1), numbers.reshape(-1, 1), n, x.dtype)
            first, second = (z.double().view(-1, b, n) for z in made)
            for value, (a, c) in ((w, in_w), (A, in_A)):
                for part in (first * a[some]).add_(second * c[some]):
                    value.add_(part)
        return w, A, u

    def _keys(self, b: int, device: torch.device) -> Tensor:
        """A 64-bit key per sample, (b, 1)."""
        path = self._seeds.stream("path")
        if self._index is None:
            return path.keys(b, device)
        own = next((c for c in (path.seed, path.first) if not isinstance(c, int)), None)
        whole = int(self._index.max()) + 1 if own is None else len(own)
        return path.keys(whole, device)[self._index]


def where_state_is(c: Tensor, x: Tensor) -> Tensor:
    """A coefficient where the state is; one of no dimension may stay, and synchronises nothing."""
    return c if c.ndim == 0 else c.to(x.device)


def coefficients(place: Tensor, k: Tensor, h: float) -> tuple[Pair, Pair]:
    """What the draws on the way are worth in w and in INT w, at a place in a tree on [0, h].

    place: () or (b, 1), in parts of h / 2^(DEPTH + 1).   k: 0 .. DEPTH + 1, (DEPTH + 2, 1, 1).

    Of the root's W and H, at p = u / h,     w = p W + 6 p (1 - p) H,
    and of an interval's Z and N, at c times half its length h from its nearer end,

        w = (3 c^2 - 2 c) Z +- 3 c (1 - c) N,   INT w = h/2 c^2 (-+ (1 - c) Z + (3/2 - c) N)

    with the upper sign in its left half and the lower one in its right half.
    """
    width = 1 << (DEPTH + 1 - k)  # of half an interval
    p, left = place.double() / 2 ** (DEPTH + 1), (place & width) == 0
    c = (place & (width - 1)).double() / width
    c, sign = torch.where(left, c, 1 - c), 2 * left.double() - 1
    h_k = width.double() * (h / 2**DEPTH)
    W, H, Z, N = math.sqrt(h), math.sqrt(h / 12), (h_k / 16).sqrt(), (h_k / 12).sqrt()
    root = k == 0
    return (
        (
            torch.where(root, W * p, Z * (c * (3 * c - 2))),
            torch.where(root, H * (6 * p * (1 - p)), N * (sign * 3 * c * (1 - c))),
        ),
        (
            torch.where(root, W * (h / 2 * p**2), Z * (-sign * h_k / 2 * c**2 * (1 - c))),
            torch.where(root, H * (h * p**2 * (3 - 2 * p)), N * (h_k / 2 * c**2 * (1.5 - c))),
        ),
    )
