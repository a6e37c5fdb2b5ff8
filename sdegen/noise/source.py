"""Where the noise comes from.  A noise source is called as  noise(x, t, s) -> z ~ N(0, I)."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdegen.noise.hashing import GOLDEN, mix, move, normals, placed, placed_all, signed
from sdegen.sde.level import Instant


class Noise(ABC):
    """A source of standard normal draws, one after another."""

    path: ClassVar[bool] = False
    """True when the draw for (t, s) is the increment of one path: asked again, it is the same."""
    end: float = math.inf
    """The time beyond which there is no such path."""

    @abstractmethod
    def __call__(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """Noise like x (b, *) for a move from level t to level s (t is s: for staying there)."""

    def area(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """The step's second normal, (b, *): its space-time area beside its increment.

        With z = self(x, t, s) and a = area(x, t, s), independent of it, the Brownian motion w of
        a step of length h has  w = sqrt(h) z  and  INT w = h^(3/2) (z + a / sqrt(3)) / 2.
        """
        return self(x, t, s)

    def take(self, index: Tensor) -> Noise:
        """The source of some samples of the batch alone, by their places (k,).

        ValueError where a part of a batch would see other noise than in the whole.
        """
        raise ValueError(
            f"{type(self).__name__} draws for a whole batch at once: for a batch that shrinks use "
            "seed= or noise=Brownian(seed)."
        )

    def stream(self, name: str) -> Noise:
        """A source of the same seed for another purpose, as "prior", "corrector" or "climb".

        What one purpose draws does not shift what another sees. The same name is the same source.
        """
        return self

    def begun(self) -> Noise:
        """The source as a solve begins with it: itself where it goes on from draw to draw; a path
        gives every solve the same, its corrections and climbs too."""
        return self


def check_noise(noise: Any) -> Noise:
    """A source itself; ValueError for what is none."""
    if not isinstance(noise, Noise):
        raise ValueError(
            "noise is a source, such as Seeded(0) or Brownian(0, T), or a class of yours that "
            f"is a sg.Noise and draws when called with (x, t, s), but it is {noise!r}."
        )
    return noise


class Fresh(Noise):
    """torch.randn, from a generator or from torch's own: fastest, and different in every batch."""

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def __call__(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """The generator's next draws."""
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype, device=x.device)


class Seeded(Noise):
    """A stream of its own for each sample: sample i is the same in any batch, on any device.

    seed: an int: sample i of the batch has stream (seed, first + i), so a batch of 64 begins like
          one of 16, and first=64 continues it; or one int per sample, each stream (seed_i, 0).
    first: or the place of each sample in a larger batch, (b,): of some samples their own noise.

    Every draw is a pure function of (stream, move from t to s, number of the draw for that move,
    coordinate): SplitMix64 (Steele et al. 2014) with a stream's own start and increment, then
    Box-Muller, in parts of the batch that take no more memory than the draw. So a walk in two
    stages of one seed has the noise of the whole, and a walk that comes by a level again has new.
    The only state is how many draws there were for each move. The stream "prior" knows no moves:
    a seed has one start, on every SDE and walk.
    """

    def __init__(self, seed: int | Sequence[int], first: int | Sequence[int] = 0) -> None:
        self.seed = whole_seed(seed)
        self.first, self._moves = first, True
        self._drawn = Counter[bytes]()
        self._keys: Tensor | None = None
        self._salt, self._streams_by_name = 0, dict[str, Seeded]()

    def stream(self, name: str) -> Seeded:
        """Streams of the same seeds that share no draw with these."""
        if name not in self._streams_by_name:
            other = Seeded(self.seed, self.first)
            digest = hashlib.sha256(f"{self._salt} {name}".encode()).digest()
            other._salt = signed(int.from_bytes(digest[:8], "big"))
            other._moves = name != "prior"
            self._streams_by_name[name] = other
        return self._streams_by_name[name]

    def __call__(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """The next draw for the move of every stream; ValueError if seeds and batch differ in
        number."""
        return normals(self.keys(len(x), x.device), self._number(t.t, s.t, x), x)

    def _number(self, t: Tensor, s: Tensor, x: Tensor) -> Tensor | int:
        """Of the next draw for a move: a number, (b, 1) where samples have times of their own."""
        ends = b""
        place: Tensor | int = 0
        if self._moves:
            if t.device.type == s.device.type == "cpu":
                # By numpy, in the host's memory: this reads nothing back from a device. Times that
                # lie on one are not looked at, and their moves share a count.
                ends = move(t.detach().numpy(), s.detach().numpy())
                if t.ndim or s.ndim:
                    return placed_all(t, s, x.device) + self._counted(t, s, x.device)
            place = placed(ends) if t.ndim == s.ndim == 0 and ends else placed_all(t, s, x.device)
        k = self._drawn[ends]
        self._drawn[ends] += 1
        if isinstance(place, int):
            return signed(place + GOLDEN * (2 * k + 1))
        return place + signed(GOLDEN * (2 * k + 1))

    def _counted(self, t: Tensor, s: Tensor, device: torch.device) -> Tensor:
        """What is added to the numbers of moves of each sample's own, (b, 1), by how often it
        has made its move."""
        counts = []
        for i, (a, b) in enumerate(zip(*torch.broadcast_tensors(t, s), strict=True)):
            ends = move(a.detach().numpy(), b.detach().numpy())
            own = ends + i.to_bytes(8, "little")
            k = self._drawn[ends] + self._drawn[own]  # with all samples, and by itself
            counts.append(signed(GOLDEN * (2 * k + 1)))
            self._drawn[own] += 1
        return torch.tensor(counts, device=device)[:, None]

    @property
    def drawn(self) -> int:
        """Draws so far."""
        return self._drawn.total()

    def rewind(self) -> None:
        """Begin again with the first draws, of every stream."""
        self._drawn.clear()
        for other in self._streams_by_name.values():
            other.rewind()

    def reseed(self, seed: int | Sequence[int]) -> None:
        """Begin again with other seeds, in the same memory: a CUDA graph finds them there."""
        self.seed = whole_seed(seed)
        self._drawn.clear()
        if (keys := self._keys) is not None:
            self._keys = None
            self._keys = keys.copy_(self.keys(len(keys), keys.device))
        for other in self._streams_by_name.values():
            other.reseed(seed)

    def keys(self, b: int, device: torch.device) -> Tensor:
        """A 64-bit key per sample, (b, 1), made once per batch size and device."""
        if not isinstance(self.seed, int) and len(self.seed) != b:
            raise ValueError(f"{len(self.seed)} seeds were given for a batch of {b} samples.")
        if self._keys is None or len(self._keys) != b or self._keys.device != device:
            if isinstance(self.seed, int):
                high = torch.full((b,), signed(self.seed), device=device)
                low = places(self.first, b, device)
            else:
                high = torch.tensor([signed(s) for s in self.seed], device=device)
                low = torch.zeros_like(high)
            keys = mix(mix(high + signed(GOLDEN)) + (low + 1) * signed(GOLDEN))
            self._keys = mix(keys ^ self._salt)[:, None]
        return self._keys


def places(first: int | Sequence[int], b: int, device: torch.device) -> Tensor:
    """The numbers of a batch's streams (b,), from the first on, or each its own."""
    if isinstance(first, int):
        return torch.arange(first, first + b, device=device)
    if len(first) != b:
        raise ValueError(f"{len(first)} places were given for a batch of {b} samples.")
    return torch.tensor(first, device=device)


def whole_seed(seed: int | Sequence[int]) -> int | list[int]:
    """A seed, or one per sample, as Python's integers."""
    if isinstance(seed, int | Integral):
        return int(seed)
    listed = seed.tolist() if hasattr(seed, "tolist") else seed
    if isinstance(listed, int):
        return listed
    if isinstance(listed, str | bytes) or not isinstance(listed, Sequence | range):
        raise ValueError(f"A seed is a whole number, or one for each sample, not {seed!r}.")
    for each in listed:
        if not isinstance(each, Integral):
            raise ValueError(f"A seed is a whole number, or one for each sample, not {each!r}.")
    return [int(each) for each in listed]


@dataclass(frozen=True)
class Inflated(Noise):
    """A source whose climbs have noise of std ``factor``: S_noise of Karras et al. (2022), alg. 2.

    Only its stream "climb" is changed. It makes up for a network that removes too much noise.
    """

    factor: float
    source: Noise = field(default_factory=Fresh)
    climbing: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.factor < math.inf:
            raise ValueError(f"S_noise is a factor >= 0, but it is {self.factor!r}.")
        if not isinstance(self.source, Noise):
            raise ValueError(
                f"What is inflated is a source, such as Seeded(0), but it is {self.source!r:.60}."
            )

    @property
    def path(self) -> bool:  # type: ignore[override]
        """As the source."""
        return self.source.path

    @property
    def end(self) -> float:  # type: ignore[override]
        """As the source."""
        return self.source.end

    def __call__(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """The source's draws, times the factor on a climb."""
        z = self.source(x, t, s)
        return self.factor * z if self.climbing else z

    def area(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """The source's."""
        return self.source.area(x, t, s)

    def take(self, index: Tensor) -> Inflated:
        """The source's, inflated."""
        return replace(self, source=self.source.take(index))

    def stream(self, name: str) -> Inflated:
        """The source's, inflated where it is "climb"."""
        return replace(self, source=self.source.stream(name), climbing=name == "climb")

    def begun(self) -> Inflated:
        """The source's, inflated."""
        return replace(self, source=self.source.begun())
