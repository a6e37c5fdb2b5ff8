"""Data as bytes, by sending a noisy x_t of it: a chain's steps told one by one by reverse channel
coding.  Theis et al. (2022).

Both ends draw x_T from the prior by one seed. At a step from t to s both know the model's
p(x_s | x_t), the sender alone q(x_s | x_t, x0), and tells a draw of it (``channel``) in chunks of
coordinates: each a number, about as long as its KL and two bits (``messages``).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.checks import number, whole
from sdegen.likelihood.bounds import (
    Variance,
    check_variance,
    data_as_seen,
    step_variance,
    whole_walk,
)
from sdegen.likelihood.channel import candidates, picked
from sdegen.likelihood.messages import Message, Zipf
from sdegen.likelihood.rates import Decoder, decoded, linear_of, step_rate
from sdegen.model.denoiser import Denoiser, refuse_flow_only
from sdegen.model.prediction import LinearPrediction
from sdegen.noise.source import Seeded
from sdegen.sde.level import Level
from sdegen.solvers.equation import renoise
from sdegen.solvers.variances import parts
from sdegen.walks.grids import WalkLike
from sdegen.walks.walk import Walk

FREE = 0.05
"""Bits: a step that no sample has more of to tell is not told; p's own draw is taken."""
LONGER = 4
"""Bits that a sample's chunk may have beyond what chunks have on average."""
HALVED = 2**16 - 1
"""In place of a number of chunks: the step is taken as two."""
PARTS = 8
"""Of a bit, in which the mean KL of a step's chunks is told: what a number's code is made for."""
NAME = b"sdegen-1"
HEAD, STEP = struct.Struct("<8sIqIIB"), struct.Struct("<HB")


@dataclass(frozen=True, eq=False)
class Compressed:
    """data: what ``decompressed`` takes.  level, state: what was sent, x_t (b, *) in float64.

    bits: lengths of each sample's numbers in the message, (b,): their sum is that of ``data``,
    but for the ``head`` bytes that say how it is made.  kl: what they would be if channels were
    ideal, (b,), on the states that were sent.
    """

    data: bytes
    level: Level
    state: Tensor
    bits: Tensor
    kl: Tensor
    head: int


class Told(NamedTuple):
    """Of a step: its number of chunks, their mean KL in parts of a bit, and every sample's
    numbers (b, chunks)."""

    chunks: int
    kl: int
    numbers: Sequence[Sequence[int]] = ()

    @property
    def law(self) -> Zipf:
        """Of its numbers."""
        return Zipf(self.kl / PARTS)


@torch.no_grad()
def compressed(
    model: Denoiser,
    x: Tensor,
    *,
    walk: WalkLike,
    until: int | None = None,
    variance: Variance = "small",
    chunk: float = 8.0,
    extra: int = 7,
    seed: int = 0,
) -> Compressed:
    """Data x (b, *) as bytes: x_t of it, after ``until`` steps of a walk, default all of them.

    walk:  times from T to t_min, best such that a step has about ``chunk`` bits (``even_walk``).
           Where one coordinate alone has more, a step is taken as two, halfway in lam.
    chunk: the bits of KL that a chunk of coordinates has at most, on average over the batch: a
           step of more is told in several. Longer ones waste less, two or three bits each, and
           take 2^(chunk + extra) candidates.
    extra: how closely what is sent follows its law: see ``channel.picked``.
    seed:  of the draws that both ends make; it is in the head.

    ``decompressed`` needs the same model, walk and variance. ValueError as of ``discrete_elbo``.
    """
    refuse_flow_only(model, "compressed")
    whole("seed", seed, -(2**63), 2**63 - 1), whole("extra", extra, 0, 20)
    if not 1 <= number("chunk", chunk) <= 20:
        raise ValueError(f"chunk is a number of bits from 1 to 20, but it is {chunk!r}.")
    ends = Ends.of("compressed", model, walk, variance, seed)
    until = whole("until", ends.walk.steps if until is None else until, 1, ends.walk.steps)
    x0 = data_as_seen(model, x, None)
    y, kl = ends.start(x0.shape), torch.zeros(len(x0), dtype=torch.float64)
    told, todo = list[Told](), ends.steps(until)
    while todo:
        t, s = todo.pop()
        seen, order = model(y.to(x0), t), ends.order(y, len(told), t)
        bits = step_rate(seen, x0, t, s, variance).flatten(1).cpu() / math.log(2)
        split = chunks(bits[:, order], chunk)
        if split is None:
            todo += ends.halves(t, s)
            told.append(Told(HALVED, 0))
            continue
        (mean, std), (target, own) = ends.proposal(seen, t, s), posterior(seen, x0, t, s)
        law = (target - mean) / std, (own / std).expand_as(mean)
        z, numbers = tell(ends, len(told), t, law, cut(order, split.shape[1]), extra)
        y, kl = mean + std * z, kl + split.sum(1)
        told.append(Told(split.shape[1], nominal(split), numbers))
    message, length = written(told, len(x0))
    head = ends.head(x0.shape, until, told)
    return Compressed(head + message, ends.walk[until], y, length, kl, len(head))


@torch.no_grad()
def decompressed(
    model: Denoiser,
    data: bytes,
    *,
    walk: WalkLike,
    variance: Variance = "small",
    decoder: Decoder = None,
) -> Tensor:
    """Data (b, *) in float64 from the bytes of ``compressed``, with the model, walk and variance
    that it was given.

    decoder: None, E[x0 | x_t], or a solver, which goes down the rest of the walk (see ``rates``).

    Numbers are whole and draws are a counter's: nothing is searched or compared, so that another
    rounding of the network moves what comes out by as much, and not by more. ValueError for bytes
    that are none of its, and for another walk.
    """
    ends, shape, until, told, message = Ends.read(model, data, walk, variance)
    y, todo = ends.start(shape), ends.steps(until)
    for j, step in enumerate(told):
        t, s = todo.pop()
        if step.chunks == HALVED:
            todo += ends.halves(t, s)
            continue
        mean, std = ends.proposal(model(y.to(model.device), t), t, s)
        z, places = ends.free(y, j, t).flatten(1), cut(ends.order(y, j, t), step.chunks)
        for i in range(len(y)):
            for c, place in enumerate(places):
                k = step.law.pop(message) - 1
                z[i, place] = candidates(said(i, j, c), ends.seed, k, 1, len(place), t)[0]
        y = mean + std * z.view_as(y)
    rest = Seeded(ends.seed).stream("decoder")
    return decoded(model, y.to(model.device), until, ends.walk, decoder, rest).cpu()


@dataclass(frozen=True, eq=False)
class Ends:
    """What both ends know."""

    model: Denoiser
    walk: Walk
    variance: Variance
    seed: int

    @classmethod
    def of(cls, who: str, model: Denoiser, walk: WalkLike, variance: Variance, seed: int) -> Ends:
        """Checked."""
        check_variance(variance)
        return cls(model, whole_walk(who, model, None, walk), variance, seed)

    @property
    def mark(self) -> int:
        """A number by which another walk is told apart."""
        return zlib.crc32(self.walk.times.numpy().astype("<f4").tobytes())

    def start(self, shape: Sequence[int]) -> Tensor:
        """x_T of the prior, on the CPU."""
        like, top = torch.empty(*shape, dtype=torch.float64), self.walk[0]
        mean, std = self.model.sde.prior.like(like)
        return mean + std * Seeded(self.seed).stream("prior")(like, top, top)

    def steps(self, until: int) -> list[tuple[Level, Level]]:
        """From level to level, the first one last."""
        return list(pairwise(self.walk[: until + 1]))[::-1]

    def halves(self, t: Level, s: Level) -> list[tuple[Level, Level]]:
        """A step as two, the first one last."""
        sde = linear_of(self.model)
        mid = sde(sde.time((t.lam + s.lam) / 2))
        return [(mid, s), (t, mid)]

    def order(self, y: Tensor, j: int, t: Level) -> Tensor:
        """The order of the coordinates (d,) in which the j-th step cuts them in chunks."""
        return candidates(f"order {j}", self.seed, 0, 1, y[0].numel(), t)[0].argsort()

    def free(self, y: Tensor, j: int, t: Level) -> Tensor:
        """The j-th step's noise where nothing is told, like y."""
        return Seeded(self.seed).stream(f"free {j}")(y, t, t)

    def proposal(self, seen: LinearPrediction, t: Level, s: Level) -> tuple[Tensor, Tensor]:
        """Mean (b, *) and std, (b, *) or (), of the model's step."""
        std = step_variance(self.variance, seen, t, s).sqrt()
        return renoise(seen, s, parts(t, s, 1.0)[1], 0.0).cpu(), std.cpu()

    def head(self, shape: Sequence[int], until: int, told: Sequence[Told]) -> bytes:
        """How a message is made."""
        first = HEAD.pack(NAME, self.mark, self.seed, until, len(told), len(shape))
        steps = b"".join(STEP.pack(step.chunks, step.kl) for step in told)
        return first + struct.pack(f"<{len(shape)}I", *shape) + steps

    @classmethod
    def read(
        cls, model: Denoiser, data: bytes, walk: WalkLike, variance: Variance
    ) -> tuple[Ends, tuple[int, ...], int, list[Told], Message]:
        """What ``head`` says, and the message."""
        if not isinstance(data, bytes) or not data.startswith(NAME) or len(data) < HEAD.size:
            raise ValueError("These are no bytes of compressed(...).data: they begin otherwise.")
        _, mark, seed, until, n, ndim = HEAD.unpack_from(data)
        ends = cls.of("decompressed", model, walk, variance, seed)
        if mark != ends.mark or until > ends.walk.steps:
            raise ValueError("These bytes were made on another walk: give the one that made them.")
        at = HEAD.size + 4 * ndim
        if at + STEP.size * n > len(data):
            raise ValueError(
                f"These {len(data)} bytes end before their own head of {n} steps does."
            )
        shape = struct.unpack_from(f"<{ndim}I", data, HEAD.size)
        told = [Told(*STEP.unpack_from(data, at + STEP.size * j)) for j in range(n)]
        return ends, shape, until, told, Message.of(data[at + STEP.size * n :])


# ---------------------------------------------------------------------------------- the sender's


def posterior(seen: LinearPrediction, x0: Tensor, t: Level, s: Level) -> tuple[Tensor, Tensor]:
    """Mean (b, *) and std () of q(x_s | x_t, x0)."""
    fresh, keep, w = parts(t, s, 1.0)
    return (renoise(seen, s, keep, 0.0) + w * (x0 - seen.x0)).cpu(), s.sigma * fresh.sqrt()


def chunks(bits: Tensor, most: float) -> Tensor | None:
    """The bits of each sample's chunks, (b, m), for as few as have ``most`` each on average and
    LONGER more at most, of those of the coordinates, (b, d), in their order: m = 0 where there is
    nothing to tell; None if chunks of one coordinate have more.  ValueError for bits that are not
    finite."""
    total = bits.sum(1)
    if not bool(total.isfinite().all()):
        raise ValueError("What a step has to tell is not finite: the model's x0 or the data.")
    if float(total.max()) <= FREE:
        return bits.new_zeros(len(bits), 0)
    for m in range(max(1, math.ceil(float(total.mean()) / most)), bits.shape[1] + 1):
        split = torch.stack([part.sum(1) for part in bits.tensor_split(m, 1)], 1)
        if float(split.mean()) <= most and float(split.max()) <= most + LONGER:
            return split
    return None


def cut(order: Tensor, m: int) -> Sequence[Tensor]:
    """Coordinates (d,) in m chunks."""
    return order.tensor_split(m) if m else ()


def nominal(split: Tensor) -> int:
    """The mean of chunks' bits (b, m), in parts of a bit."""
    return min(255, round(PARTS * float(split.mean()))) if split.numel() else 0


def said(i: int, j: int, c: int) -> str:
    """The name of a chunk's candidates: of sample, step and chunk."""
    return f"sample {i}, step {j}, chunk {c}"


def tell(
    ends: Ends,
    j: int,
    t: Level,
    law: tuple[Tensor, Tensor],
    places: Sequence[Tensor],
    extra: int,
) -> tuple[Tensor, list[list[int]]]:
    """Draws of the j-th step's law, mean and std (b, *) beside N(0, I), and their numbers >= 1,
    sample by sample and chunk by chunk; p's own where there is none."""
    mean, std = (part.flatten(1) for part in law)
    z = ends.free(law[0], j, t).flatten(1)
    numbers = [[0] * len(places) for _ in mean]
    for i in range(len(mean)):
        for c, at in enumerate(places):
            name = said(i, j, c)
            k, z[i, at] = picked(mean[i, at], std[i, at], extra, name=name, seed=ends.seed, at=t)
            numbers[i][c] = k + 1
    return z.view_as(law[0]), numbers


def written(told: Sequence[Told], b: int) -> tuple[bytes, Tensor]:
    """All numbers, the first to be read first, and the bits of each sample's, (b,)."""
    message, bits = Message(), torch.zeros(b, dtype=torch.float64)
    for step in reversed(told):
        for i, numbers in reversed(list(enumerate(step.numbers))):
            for k in reversed(numbers):
                bits[i] += step.law.push(message, k)
    return message.to_bytes(), bits
