"""Noise: normal, independent, and each sample's own whatever is around it."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import sdegen as sg
from sdegen.bench.watch import Memory
from sdegen.noise import hashing
from sdegen.noise.hashing import mix, signed
from sdegen.sde.level import Instant
from tests.cases import close, refused

LEVEL = 1e-5
NOW = sg.EDMSDE()(1.0)


def draw(noise: sg.Noise, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return noise(torch.empty(shape, dtype=dtype), NOW, NOW)


def normality(z: Tensor) -> float:
    """p-value of Kolmogorov and Smirnov against N(0, 1)."""
    return float(stats.kstest(z.double().flatten().numpy(), "norm").pvalue)


def independence(a: Tensor, b: Tensor) -> float:
    """The smaller p-value of two correlations: of the draws, and of their sizes."""
    n = a.numel()
    assert n == b.numel() >= 50_000
    values = []
    for u, v in ((a, b), (a.abs(), b.abs())):
        r = torch.corrcoef(torch.stack([u.flatten(), v.flatten()]).double())[0, 1]
        values.append(2 * stats.norm.sf(abs(float(r)) * math.sqrt(n)))
    return min(values)


# ------------------------------------------------------------------------------ the mixing alone


def splitmix64(z: int) -> int:
    """Steele, Lea & Flood (2014), in Python's own integers."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50))
def test_mixing_is_splitmix64(values: list[int]) -> None:
    mixed = mix(torch.tensor([signed(v) for v in values]))
    assert [v % 2**64 for v in mixed.tolist()] == [splitmix64(v) for v in values]


def test_splitmix64_gives_the_published_sequence() -> None:
    """The first outputs of the reference implementation from the state 1234567."""
    state, outputs = 1234567, []
    for _ in range(5):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        outputs.append(int(mix(torch.tensor(signed(state)))) % 2**64)
    assert outputs == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def reference(key: int, number: int, n: int) -> list[float]:
    """A stream's draw by Python's own numbers, its n cosines before its n sines."""
    start = splitmix64((key + number) % 2**64)
    step = splitmix64((key % 2**64) ^ start) | 1
    words = [splitmix64((start + i * step) % 2**64) for i in range(1, n + 1)]
    radius = [math.sqrt(-2 * math.log(((word >> 32) + 0.5) / 2**32)) for word in words]
    angle = [2 * math.pi * (word % 2**32) / 2**32 for word in words]
    return [r * f(a) for f in (math.cos, math.sin) for r, a in zip(radius, angle, strict=True)]


ONE = int.from_bytes(struct.pack("<f", 1.0), "little")
PLACE = splitmix64((splitmix64((ONE + hashing.GOLDEN) % 2**64) + ONE) % 2**64)
"""Of the move from NOW to NOW."""


@given(st.integers(-(2**65), 2**65), st.integers(0, 3), st.integers(1, 9))
def test_a_draw_is_what_it_says(seed: int, skip: int, n: int) -> None:
    """Streams of seeds, draws of streams and coordinates of draws, one at a time in Python."""
    noise = sg.Seeded([seed])
    key = int(noise.keys(1, torch.device("cpu")))
    for k in range(skip + 1):
        z = draw(noise, 1, n)
        number = PLACE + hashing.GOLDEN * (2 * k + 1)
        close(z[0], torch.tensor(reference(key, number, (n + 1) // 2)[:n]).double(), 1e-6, 1e-6)


# --------------------------------------------------------------------- in parts, in little memory


SHAPES = [(1,), (9,), (1, 1), (20, 2), (3, 7), (1, 201), (5, 3, 4), (2, 3, 8, 8), (0, 3), (4, 0)]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("at_once", [12, 200])
def test_draws_are_the_same_in_any_parts(
    at_once: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draw is made in parts of rows or of columns: no bit tells where they met."""
    whole = [draws(sg.Seeded(5, first=3), 2, *shape, dtype=dtype) for shape in SHAPES]
    monkeypatch.setattr(hashing, "AT_ONCE", {"cpu": at_once})
    for shape, want in zip(SHAPES, whole, strict=True):
        z = draws(sg.Seeded(5, first=3), 2, *shape, dtype=dtype)
        assert torch.equal(z, want)
        for i in range(0, shape[0], 8):
            alone = draws(sg.Seeded(5, first=3 + i), 2, 1, *shape[1:], dtype=dtype)
            assert torch.equal(alone, want[:, i : i + 1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 2**18 + 1), (100, 3, 32, 32), (2**17, 3)], ids=str)
def test_large_draws_are_those_of_their_samples(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the size of the parts that is set."""
    z = draw(sg.Seeded(2**63), *shape, dtype=dtype)
    assert hashing.AT_ONCE["cpu"] < z.numel() / 2
    last = draw(sg.Seeded(2**63, first=shape[0] - 1), 1, *shape[1:], dtype=dtype)
    assert torch.equal(z[-1:], last)
    monkeypatch.setattr(hashing, "AT_ONCE", {"cpu": 2**30})
    assert torch.equal(draw(sg.Seeded(2**63), *shape, dtype=dtype), z)


@contextmanager
def no_reads() -> Iterator[None]:
    """Nothing inside may ask for a value, or for a shape that depends on one."""

    class Guard(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            assert not {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & {
                *func.tags
            }, func
            return func(*args, **(kwargs or {}))

    with Guard():
        yield


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(64, 3, 32, 32), (16, 3, 64, 64), (1, 2**20), (300, 1001), (4096, 100)], ids=str
)
def test_seeded_noise_takes_a_state_more_at_most(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Beside what it returns, which torch.randn returns too."""
    x, noise = torch.empty(shape, dtype=dtype), sg.Seeded(0)
    with Memory(noise.keys(len(x), x.device)) as memory, no_reads():
        z = noise(x, NOW, NOW)
    state = z.numel() * z.element_size()
    assert state <= memory.peak <= 2 * state


def test_small_float_draws_take_a_state_more_at_most() -> None:
    """Made in one part, they need the memory of the hashes and nothing else."""
    for shape in ((64, 64), (8, 3, 32, 32), (1, 3, 64, 64)):
        for dtype in (torch.float32, torch.float64):
            x, noise = torch.empty(shape, dtype=dtype), sg.Seeded(0)
            with Memory(noise.keys(len(x), x.device)) as memory:
                noise(x, NOW, NOW)
            assert memory.peak <= 2 * x.numel() * x.element_size() + 64 * len(x)


# --------------------------------------------------------------------------------- normal draws

MANY = {
    "coordinates of one sample": lambda dtype: draw(sg.Seeded(0), 1, 100_001, dtype=dtype),
    "samples": lambda dtype: draw(sg.Seeded(1), 100_000, 1, dtype=dtype),
    "samples without coordinates": lambda dtype: draw(sg.Seeded(7), 100_000, dtype=dtype),
    "seeds": lambda dtype: draw(sg.Seeded(range(50_000)), 50_000, 2, dtype=dtype),
    "draws": lambda dtype: draws(sg.Seeded(3), 1_000, 20, 5, dtype=dtype),
    "an odd shape": lambda dtype: draw(sg.Seeded(2**63 + 1), 999, 3, 7, 5, dtype=dtype),
    "torch's own": lambda dtype: draw(
        sg.noise.Fresh(torch.Generator().manual_seed(0)), 1000, 100, dtype=dtype
    ),
}


def draws(noise: sg.Noise, k: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """k draws after one another, (k, *shape)."""
    return torch.stack([draw(noise, *shape, dtype=dtype) for _ in range(k)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("many", MANY.values(), ids=MANY)
def test_draws_are_normal(many: object, dtype: torch.dtype) -> None:
    z = many(dtype)  # type: ignore[operator]
    assert z.dtype == dtype and z.numel() >= 99_000
    assert normality(z) > LEVEL
    # The test above is blind in the tails: there, the count beyond 3.5 is a Poisson number.
    beyond, expected = int((z.abs() > 3.5).sum()), z.numel() * 2 * stats.norm.sf(3.5)
    assert abs(beyond - expected) < 5 * math.sqrt(expected)


PAIRS = {
    "neighbouring samples": lambda: shifted(draw(sg.Seeded(0), 1001, 100)),
    "neighbouring coordinates": lambda: shifted(draw(sg.Seeded(0), 100, 1001).T),
    "samples two apart": lambda: shifted(draw(sg.Seeded(4), 1002, 100), 2),
    "successive draws": lambda: shifted(draws(sg.Seeded(0), 101, 20, 50)),
    "neighbouring seeds": lambda: (draw(sg.Seeded(10), 100, 1000), draw(sg.Seeded(11), 100, 1000)),
    "neighbouring seeds, one each": lambda: shifted(draw(sg.Seeded(range(1001)), 1001, 100)),
    "seed and first": lambda: (
        draw(sg.Seeded(1, first=0), 100, 1000),
        draw(sg.Seeded(0, first=1), 100, 1000),
    ),
    "the two halves of Box and Muller": lambda: tuple(draw(sg.Seeded(5), 100, 2000).chunk(2, 1)),
}


def shifted(z: Tensor, lag: int = 1) -> tuple[Tensor, Tensor]:
    return z[:-lag], z[lag:]


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_draws_are_independent(pair: object) -> None:
    a, b = pair()  # type: ignore[operator]
    assert independence(a, b) > LEVEL


def test_these_statistics_see_what_they_must() -> None:
    """Negative controls: a source that shares 3 % of its noise, one 5 % too wide, one radius."""
    z = draw(sg.Seeded(0), 1001, 100)
    assert independence(z[:-1], 0.03 * z[:-1] + math.sqrt(1 - 0.03**2) * z[1:]) < LEVEL
    assert normality(1.05 * z) < LEVEL
    assert normality(z + 0.03) < LEVEL
    angle = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * 2 * math.pi
    radius = draw(sg.Seeded(1), 100_000).abs()
    assert independence(radius * angle.cos(), radius * angle.sin()) < LEVEL


def test_no_two_streams_meet() -> None:
    """Seeds by samples by draws by coordinates: all of them different."""
    z = torch.stack([draws(sg.Seeded(seed), 5, 20, 40) for seed in range(-25, 25)])
    assert z.flatten().unique().numel() == z.numel()
    assert draw(sg.Seeded(range(90_000)), 90_000, 1).unique().numel() == 90_000


# ----------------------------------------------------------------------- each sample its own noise

shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
seeds = st.integers(-(2**65), 2**65)


@given(
    seeds,
    shapes,
    st.integers(1, 6),
    st.integers(0, 2**40),
    st.sampled_from((torch.float32, torch.float64)),
)
def test_a_sample_is_the_same_in_any_batch(
    seed: int, shape: tuple[int, ...], b: int, first: int, dtype: torch.dtype
) -> None:
    together = draws(sg.Seeded(seed, first=first), 3, b, *shape, dtype=dtype)
    for i in range(b):
        alone = draws(sg.Seeded(seed, first=first + i), 3, 1, *shape, dtype=dtype)
        assert torch.equal(together[:, i : i + 1], alone)
    assert torch.equal(
        draws(sg.Seeded(seed, first), 3, 2 * b, *shape, dtype=dtype)[:, :b], together
    )


@given(st.lists(seeds, min_size=1, max_size=5), shapes, st.randoms(use_true_random=False))
def test_one_seed_per_sample_in_any_order(
    each: list[int], shape: tuple[int, ...], random: object
) -> None:
    z = draws(sg.Seeded(each), 2, len(each), *shape)
    order = list(range(len(each)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = draws(sg.Seeded([each[i] for i in order]), 2, len(each), *shape)
    assert torch.equal(shuffled, z[:, order])
    for i, seed in enumerate(each):
        assert torch.equal(draws(sg.Seeded(seed), 2, 1, *shape), z[:, i : i + 1])


def test_a_draw_is_a_function_of_its_number() -> None:
    """Not of the shapes drawn before: the only state is the count."""
    a, b = sg.Seeded(0), sg.Seeded(0)
    first = draw(a, 4, 2)
    draw(b, 7, 5)
    assert torch.equal(draw(a, 4, 2), draw(b, 6, 2)[:4])
    assert torch.equal(draw(sg.Seeded(0), 4, 2), first)
    assert a.drawn == b.drawn == 2
    assert not torch.equal(draw(a, 4, 2), first)


def test_a_move_has_noise_of_its_own() -> None:
    """Whatever was drawn for others before; asked for again, new; the prior knows no moves."""
    later, x = sg.EDMSDE()(0.5), torch.empty(400, 200, dtype=torch.float64)
    a, b = sg.Seeded(0), sg.Seeded(0)
    moves = [(NOW, later), (later, NOW), (later, later), (NOW, NOW)]
    first = [a(x, *move) for move in moves]
    for z, move in reversed(list(zip(first, moves, strict=True))):
        assert torch.equal(b(x, *move), z)
    again = a(x, NOW, later)
    assert torch.equal(b(x, NOW, later), again)
    for z, other in itertools.combinations([*first, again], 2):
        assert independence(z, other) > LEVEL
    assert torch.equal(
        sg.Seeded(0).stream("prior")(x, NOW, NOW), sg.Seeded(0).stream("prior")(x, later, later)
    )


def test_a_last_bit_of_a_time_is_no_other_move() -> None:
    """Grids differ in it from processor to processor."""
    sde, x = sg.EDMSDE(), torch.empty(3, 2)
    near = sde(math.nextafter(0.7, 1.0))
    assert torch.equal(sg.Seeded(0)(x, NOW, sde(0.7)), sg.Seeded(0)(x, NOW, near))


def test_times_of_their_own_are_those_of_samples_alone() -> None:
    sde, x = sg.EDMSDE(), torch.empty(3, 5)
    t, s = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([0.5, 0.25, 1.0]).double()
    together = sg.Seeded(0)(x, sde(t), sde(s))
    for i in range(3):
        alone = sg.Seeded(0, first=i)(x[:1], sde(t[i]), sde(s[i]))
        assert torch.equal(alone, together[i : i + 1])
    large = torch.empty(3, 2**18)  # in parts
    assert torch.equal(
        sg.Seeded(0)(large, sde(t), sde(s))[1:2],
        sg.Seeded(0, first=1)(large[:1], sde(2.0), sde(0.25)),
    )


def test_precisions_agree() -> None:
    """float32 decides in 24 bits: a radius near zero is off by at most sqrt(2^-23)."""
    exact = draw(sg.Seeded(0), 100, 1001)
    error = (draw(sg.Seeded(0), 100, 1001, dtype=torch.float32).double() - exact).abs()
    assert float(error.mean()) < 2e-7 and float((error > 1e-6).double().mean()) < 0.01
    assert float(error.max()) < math.sqrt(2**-23)
    for half in (torch.float16, torch.bfloat16):
        close(draw(sg.Seeded(0), 9, 5, dtype=half), draw(sg.Seeded(0), 9, 5), 1e-2, 1e-2)


def test_global_generator_is_left_alone_by_seeds() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    draw(sg.Seeded(0), 4, 2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fresh_noise_is_its_generators() -> None:
    generator = torch.Generator().manual_seed(5)
    noise = sg.noise.Fresh(torch.Generator().manual_seed(5))
    for _ in range(3):
        want = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        assert torch.equal(draw(noise, 4, 3), want)
    torch.manual_seed(5)
    want = torch.randn(4, 3)
    torch.manual_seed(5)
    assert torch.equal(draw(sg.noise.Fresh(), 4, 3, dtype=torch.float32), want)


def test_as_many_seeds_as_samples() -> None:
    for number in (0, 2, 4):
        with refused(f"{number} seeds were given for a batch of 3 samples"):
            draw(sg.Seeded(range(number)), 3, 2)


def test_a_sample_s_move_is_counted_by_itself() -> None:
    """Who makes a move again draws anew, whatever the times of its neighbours are meanwhile."""

    def at(*times: float) -> Instant:
        return Instant(torch.tensor(times, dtype=torch.float64))

    x, noise = torch.zeros(2, 3), sg.Seeded(0)
    first = noise(x, at(0.5, 0.3), at(0.4, 0.2))
    again = noise(x, at(0.5, 0.2), at(0.4, 0.1))
    assert not torch.equal(first[0], again[0])
    alone = sg.Seeded(0)
    one = [alone(x[:1], at(0.5), at(0.4)) for _ in range(2)]
    assert torch.equal(first[:1], one[0]) and torch.equal(again[:1], one[1])
