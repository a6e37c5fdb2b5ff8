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
from sdegen.likelihood.messages import Message, Zipf, check_read, opened, sealed
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
"""Bits: what a sample has no more of to tell is not told; p's own draw is taken."""
LONGER = 4
"""Bits that a chunk may have beyond what chunks should have."""
MOST = 2**31
"""Numbers that the data of a message may have."""
HEAD = struct.Struct("<IqIdB")
"""Mark, seed, until, chunk, and how many lengths the shape that follows has."""


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
    """Of a step: each sample's grade and numbers; none where it is taken as two."""

    grades: Sequence[int] = ()
    numbers: Sequence[Sequence[int]] = ()


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
    chunk: the bits of KL that a chunk of coordinates should have at most: what a sample has more
           of in a step is told in several. Longer ones waste less, two or three bits each, and
           take 2^(chunk + extra) candidates.
    extra: how closely what is sent follows its law: see ``channel.picked``.
    seed:  of the draws that both ends make; it is in the head.

    ``decompressed`` needs the same model, walk and variance. ValueError as of ``discrete_elbo``.
    """
    refuse_flow_only(model, "compressed")
    whole("seed", seed, -(2**63), 2**63 - 1), whole("extra", extra, 0, 20)
    if not 1 <= number("chunk", chunk) <= 20:
        raise ValueError(f"chunk is a number of bits from 1 to 20, but it is {chunk!r}.")
    ends = Ends.of("compressed", model, walk, variance, seed, float(chunk))
    until = whole("until", ends.walk.steps if until is None else until, 1, ends.walk.steps)
    x0 = data_as_seen(model, x, None)
    check_shape(x0.shape)
    y, kl = ends.start(x0.shape), torch.zeros(len(x0), dtype=torch.float64)
    told, todo = list[Told](), ends.steps(until)
    while todo:
        t, s = todo.pop()
        seen, order = model(y.to(x0), t), ends.order(y, len(told), t)
        bits = step_rate(seen, x0, t, s, variance).flatten(1).cpu() / math.log(2)
        grades = [ends.grade(each) for each in bits[:, order]]
        if None in grades:
            todo += ends.halves(t, s)
            told.append(Told())
            continue
        (mean, std), (target, own) = ends.proposal(seen, t, s), posterior(seen, x0, t, s)
        law = (target - mean) / std, (own / std).expand_as(mean)
        places = [cut(order, ends.chunks(g)) for g in grades if g is not None]
        z, numbers = tell(ends, len(told), t, law, places, extra)
        y, kl = mean + std * z, kl + bits.sum(1)
        told.append(Told([g for g in grades if g is not None], numbers))
    message, length = written(ends, told, len(x0))
    data = sealed(ends.head(x0.shape, until) + message)
    return Compressed(data, ends.walk[until], y, length, kl, len(data) - len(message))


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
    rounding of the network moves what comes out by as much, and not by more.

    ValueError for bytes that are none of its or were changed since, by their CRC-32, and for
    another walk, SDE or kind of variance. Another network's weights are not noticed.
    """
    ends, shape, until, message = Ends.read(model, data, walk, variance)
    y, todo, grades, j = ends.start(shape), ends.steps(until), [0] * shape[0], -1
    while todo:
        j, (t, s) = j + 1, todo.pop()
        if message.take(2):
            todo += ends.halves(t, s)
            continue
        mean, std = ends.proposal(model(y.to(model.device), t), t, s)
        z, order = ends.free(y, j, t).flatten(1), ends.order(y, j, t)
        for i in range(len(y)):
            grades[i] += signed_of(CHANGE.pop(message))
            check_read(ends.fits(grades[i], y[0].numel()))
            law = ends.law(grades[i])
            for c, place in enumerate(cut(order, ends.chunks(grades[i]))):
                k = law.pop(message) - 1
                z[i, place] = candidates(said(i, j, c), ends.seed, k, 1, len(place), t)[0]
        y = mean + std * z.view_as(y)
    check_read(message.state == 1)
    rest = Seeded(ends.seed).stream("decoder")
    return decoded(model, y.to(model.device), until, ends.walk, decoder, rest).cpu()


@dataclass(frozen=True, eq=False)
class Ends:
    """What both ends know."""

    model: Denoiser
    walk: Walk
    variance: Variance
    seed: int
    chunk: float

    @classmethod
    def of(
        cls,
        who: str,
        model: Denoiser,
        walk: WalkLike,
        variance: Variance,
        seed: int,
        chunk: float,
    ) -> Ends:
        """Checked."""
        check_variance(variance)
        return cls(model, whole_walk(who, model, None, walk), variance, seed, chunk)

    def chunks(self, grade: int) -> int:
        """In how many parts a sample of a grade, with 2^(grade / 2) bits to tell, is cut."""
        return math.ceil(2 ** (grade / 2) / self.chunk) if grade else 0

    def fits(self, grade: int, d: int) -> bool:
        """Whether a sample of d coordinates can have a grade."""
        return 0 <= grade < 128 and self.chunks(grade) <= d

    def law(self, grade: int) -> Zipf:
        """Of a grade's numbers."""
        return Zipf(2 ** (grade / 2) / max(1, self.chunks(grade)))

    def grade(self, bits: Tensor) -> int | None:
        """Of a sample whose coordinates have so many bits to tell, (d,) in their order: 0 where
        there is nothing to tell; None if chunks of one coordinate have too many.

        ValueError for bits that are not finite.
        """
        total = float(bits.sum())
        if not math.isfinite(total):
            raise ValueError("What a step has to tell is not finite: the model's x0 or the data.")
        if total <= FREE:
            return 0
        grade = max(1, round(2 * math.log2(total)))
        while (m := self.chunks(grade)) <= len(bits):
            if max(float(part.sum()) for part in bits.tensor_split(m)) <= self.chunk + LONGER:
                return grade
            grade += 1
        return None

    @property
    def mark(self) -> int:
        """A number by which another walk, SDE or kind of variance is told apart: of times, alpha
        and sigma there, the prior, and the variance's name."""
        at, prior = linear_of(self.model)(self.walk.times), self.model.sde.prior
        name = self.variance if isinstance(self.variance, str) else type(self.variance).__name__
        mark = zlib.crc32(name.encode())
        for each in (at.t, at.alpha, at.sigma, prior.mean, prior.std):
            row = torch.as_tensor(each).detach().cpu().numpy().astype("<f4")
            mark = zlib.crc32(row.tobytes(), mark)
        return mark

    def start(self, shape: Sequence[int]) -> Tensor:
        """x_T of the prior, on the CPU."""
        like, top = torch.empty(*shape, dtype=torch.float64), self.walk[0]
        mean, std = self.model.sde.prior.like(like)
        return mean + std * Seeded(self.seed).stream("prior")(like, top, top)

    def steps(self, until: int) -> list[tuple[Level, Level]]:
        """From level to level, the first one last."""
        return list(pairwise(self.walk[: until + 1]))[::-1]

    def halves(self, t: Level, s: Level) -> list[tuple[Level, Level]]:
        """A step as two, the first one last; ValueError where no time is between."""
        sde = linear_of(self.model)
        mid = sde(sde.time((t.lam + s.lam) / 2))
        if not t.t > mid.t > s.t:
            raise ValueError(
                f"The step from t = {float(t.t)!r} to {float(s.t)!r} has no half: one coordinate "
                "has too many bits at any step's length, or a message was not written here."
            )
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

    def head(self, shape: Sequence[int], until: int) -> bytes:
        """How a message is made."""
        first = HEAD.pack(self.mark, self.seed, until, self.chunk, len(shape))
        return first + struct.pack(f"<{len(shape)}I", *shape)

    @classmethod
    def read(
        cls, model: Denoiser, data: bytes, walk: WalkLike, variance: Variance
    ) -> tuple[Ends, tuple[int, ...], int, Message]:
        """What ``head`` says, and the message; ValueError as ``decompressed`` says."""
        body = opened(data, HEAD.size + 1)
        mark, seed, until, chunk, ndim = HEAD.unpack_from(body)
        ends = cls.of("decompressed", model, walk, variance, seed, chunk)
        if mark != ends.mark:
            raise ValueError(
                "These bytes were made on another walk, on another SDE or with another variance "
                f"than {ends.walk!r} and {variance!r}: give those that made them."
            )
        at = HEAD.size + 4 * ndim
        if not (1 <= chunk <= 20 and 1 <= until <= ends.walk.steps and at < len(body)):
            raise ValueError(
                f"These bytes say chunk={chunk!r}, until={until} and {ndim} lengths of a shape, "
                "which compressed(...) never does."
            )
        shape = struct.unpack_from(f"<{ndim}I", body, HEAD.size)
        check_shape(shape)
        return ends, shape, until, Message.of(body[at:])


def check_shape(shape: Sequence[int]) -> None:
    """ValueError for what is no shape of data (b, *), or one of too many numbers."""
    if not (1 <= len(shape) <= 64 and 1 <= math.prod(shape) <= MOST):
        raise ValueError(
            f"The data of a message have from 1 to {MOST} numbers, but the shape {tuple(shape)}."
        )


# ---------------------------------------------------------------------------------- the sender's


def posterior(seen: LinearPrediction, x0: Tensor, t: Level, s: Level) -> tuple[Tensor, Tensor]:
    """Mean (b, *) and std () of q(x_s | x_t, x0)."""
    fresh, keep, w = parts(t, s, 1.0)
    return (renoise(seen, s, keep, 0.0) + w * (x0 - seen.x0)).cpu(), s.sigma * fresh.sqrt()


def cut(order: Tensor, m: int) -> Sequence[Tensor]:
    """Coordinates (d,) in m chunks."""
    return order.tensor_split(m) if m else ()


def said(i: int, j: int, c: int) -> str:
    """The name of a chunk's candidates: of sample, step and chunk."""
    return f"sample {i}, step {j}, chunk {c}"


CHANGE = Zipf(0.0)
"""Of how a sample's grade goes from one step to the next."""


def signed_of(k: int) -> int:
    """0, 1, -1, 2, -2, ... for k = 1, 2, 3, 4, 5, ..."""
    return k // 2 if k % 2 == 0 else -(k // 2)


def unsigned(change: int) -> int:
    """The k >= 1 of a whole number."""
    return 2 * change if change > 0 else 1 - 2 * change


def tell(
    ends: Ends,
    j: int,
    t: Level,
    law: tuple[Tensor, Tensor],
    places: Sequence[Sequence[Tensor]],
    extra: int,
) -> tuple[Tensor, list[list[int]]]:
    """Draws of the j-th step's law, mean and std (b, *) beside N(0, I), and their numbers >= 1,
    of every sample's chunks; p's own where there is none."""
    mean, std = (part.flatten(1) for part in law)
    z = ends.free(law[0], j, t).flatten(1)
    numbers: list[list[int]] = [[] for _ in places]
    for i, chunks in enumerate(places):
        for c, at in enumerate(chunks):
            name = said(i, j, c)
            k, z[i, at] = picked(mean[i, at], std[i, at], extra, name=name, seed=ends.seed, at=t)
            numbers[i].append(k + 1)
    return z.view_as(law[0]), numbers


def written(ends: Ends, told: Sequence[Told], b: int) -> tuple[bytes, Tensor]:
    """All that is told, the first to be read first, and the bits of each sample's, (b,)."""
    message, bits = Message(), torch.full((b,), len(told) / b, dtype=torch.float64)
    last, changes = [0] * b, list[list[int]]()
    for step in told:
        changes.append([g - before for g, before in zip(step.grades, last, strict=False)])
        last = list(step.grades) or last
    for step, change in zip(reversed(told), reversed(changes), strict=True):
        for i in reversed(range(len(step.grades))):
            for k in reversed(step.numbers[i]):
                bits[i] += ends.law(step.grades[i]).push(message, k)
            bits[i] += CHANGE.push(message, unsigned(change[i]))
        message.push(int(not step.grades), 1, 2)
    return message.to_bytes(), bits
