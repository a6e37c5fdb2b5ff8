"""Compression: rates and distortions against closed forms, channels against their laws, bytes."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import Gaussian, exact_model
from sdegen.likelihood import (
    compressed,
    decompressed,
    discrete_elbo,
    even_walk,
    rate_distortion,
)
from sdegen.likelihood.channel import divergence_bits, picked
from sdegen.likelihood.compression import HEAD
from sdegen.likelihood.messages import SEAL, TOTAL, Message, Zipf, opened, sealed
from sdegen.solvers.variances import of_data
from tests.cases import Plain, close, closed_form, normal, pointwise, refused
from tests.processes import python

V = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.25, 0.1, 0.05, 0.01], dtype=torch.float64)
DATA = Gaussian(torch.zeros(8), V)


def designed(n: int) -> Tensor:
    """Data (8 n, 8) whose second moments are V to the bit: rows of a Hadamard matrix."""
    H = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(3):
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return (H * V.sqrt()).repeat(n, 1)


class Exact:
    """The variance of DATA itself given x_t, as a head says it."""

    def variance(self, p: sg.Prediction, t: sg.Level, s: sg.Level, mean_eta: float) -> Tensor:  # type: ignore[name-defined]
        eps2 = V * t.alpha**2 / (t.alpha**2 * V + t.sigma**2)
        return of_data(p, eps2.expand_as(p.x0), t, s, mean_eta)

    def log_decoded(self, p: object, t: sg.Level, s: sg.Level) -> Tensor:
        raise NotImplementedError

    def loss(self, p: object, x0: Tensor, z: Tensor, t: sg.Level, s: sg.Level) -> Tensor:
        raise NotImplementedError


def rate(snr: Tensor) -> float:
    """1/2 sum log(1 + snr v), nats."""
    return float(0.5 * torch.log1p(snr * V).sum())


def chained(sde: sg.LinearSDE, n: int) -> float:
    """The rate of n steps, step by step in closed form."""
    at = sde(sg.walks.log_snr(sde, n))
    snr, std = (2 * at.lam).exp(), sde.prior.std
    terms = (snr[1:] - snr[:-1])[:, None] * V / (1 + snr[:-1, None] * V)
    ratio = (at.alpha[0] ** 2 * V + at.sigma[0] ** 2) / std**2
    first = ratio - 1 - 2 * torch.log(at.sigma[0] / std)
    return float(0.5 * (terms.sum() + first.sum()))


# ------------------------------------------------------------------------- rates and distortions


@closed_form
def test_rate_is_the_sum_of_the_steps(sde: sg.LinearSDE) -> None:
    if sde(sde.T).lam < -20 or not sde(sde.t_min).sigma > 0:
        sde = type(sde)(T=0.999, t_min=1e-3)  # type: ignore[call-arg]
    model, x = exact_model(DATA, sde), designed(32)
    (end,) = rate_distortion(model, x, decoders={}, steps=30, points=1)
    assert float(end.rate.mean()) / chained(sde, 30) == pytest.approx(1, abs=0.02)
    bound = discrete_elbo(model, x, steps=30)
    close(end.rate, bound.prior + bound.diffusion)


def test_excess_of_the_rate_falls_as_the_steps_do() -> None:
    sde = sg.VPSDE()
    whole = rate((2 * sde(sde.t_min).lam).exp())
    excess = {n: chained(sde, n) / whole - 1 for n in (100, 200, 400, 1000)}
    assert 0 < excess[1000] < 0.015 and 0 < excess[100] < 0.1
    assert excess[100] / excess[200] == pytest.approx(2, abs=0.1)
    assert excess[200] / excess[400] == pytest.approx(2, abs=0.1)
    model, x = exact_model(DATA, sde), designed(16)
    (end,) = rate_distortion(model, x, decoders={}, steps=1000, points=1)
    assert float(end.rate.mean()) / whole == pytest.approx(1 + excess[1000], abs=0.005)


@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.EDMSDE()], ids=["vp", "edm"])
def test_steps_of_any_length_cost_no_more_with_the_right_variance(sde: sg.LinearSDE) -> None:
    """The sum of E KL is then the mutual information of x0 and x_t, whatever the steps."""
    model, x = exact_model(DATA, sde), designed(512)
    points = rate_distortion(model, x, decoders={}, steps=6, points=3, variance=Exact())
    for point in points[1:]:
        wanted = rate((2 * point.level.lam).exp())
        assert float(point.rate.mean()) / wanted == pytest.approx(1, abs=0.01)


def test_distortions_are_the_closed_forms() -> None:
    """Decoders that go down end with the mean at t_min, of which r has the signal's share."""
    sde = sg.VPSDE()
    model, x = exact_model(DATA, sde), designed(200)

    def share(level: sg.Level) -> Tensor:
        return (2 * level.lam).exp() * V / (1 + (2 * level.lam).exp() * V)

    *points, end = rate_distortion(model, x, steps=400, points=3)
    last = share(end.level)
    for point in points:
        r = share(point.level)
        wanted = {
            "mean": V * (1 - r),
            "ancestral": V * (1 - r) + V * (last - r),
            "flow": V * (1 + last - 2 * (last * r).sqrt()),
        }
        for name, each in wanted.items():
            assert float(point.mse[name].mean() / each.mean()) == pytest.approx(1, abs=0.03), name
    assert torch.equal(end.mse["flow"], end.mse["mean"])


def test_even_walks_have_even_rates() -> None:
    model, x = exact_model(DATA, sg.VPSDE()), designed(64)
    walk = even_walk(model, x, 2.0)
    points = rate_distortion(model, x, decoders={}, walk=walk, points=walk.steps, variance=Exact())
    bits = torch.stack([p.rate.mean() for p in points]).diff() / math.log(2)
    assert walk.steps > 8 and bits[:-1].std() < 0.3
    assert 1.5 < float(bits[:-1].mean()) < 2.1


# -------------------------------------------------------------------------------------- channels


def picks(mean: float, std: float, extra: int, n: int, d: int = 4) -> tuple[Tensor, Tensor]:
    """Numbers (n,), from 1, and draws (n, d) of N(mean, std^2) in each coordinate."""
    at = sg.VPSDE()(0.5)
    m, s = (torch.full((d,), c, dtype=torch.float64) for c in (mean, std))
    found = [picked(m, s, extra, name="channel", seed=i, at=at) for i in range(n)]
    return torch.tensor([k + 1 for k, _ in found]), torch.stack([z for _, z in found])


@pytest.mark.parametrize(("mean", "std"), [(1.1, 1.0), (0.9, 0.6)])
def test_channel_has_its_law_and_length(mean: float, std: float) -> None:
    k, z = picks(mean, std, 7, 400)
    d = torch.full((4,), 1.0, dtype=torch.float64)
    kl = divergence_bits(mean * d, std * d)
    error = std / math.sqrt(4 * 400)
    assert abs(float(z.mean()) - mean) < 0.05 * mean + 3 * error
    assert float(z.var()) == pytest.approx(std**2, rel=0.12)
    law, message = Zipf(round(8 * kl) / 8), Message()
    mean_length = sum(law.push(message, int(each)) for each in k) / len(k)
    assert kl - 0.5 < mean_length < kl + math.log2(kl + 1) + 4


def test_more_candidates_come_closer() -> None:
    few, many = (float(picks(1.1, 1.0, extra, 200)[1].mean()) for extra in (1, 7))
    assert few < 0.9 * 1.1 < many


def test_channel_of_the_same_law_says_one() -> None:
    k, z = picks(0.0, 1.0, 5, 50)
    assert (k == 1).all() and z.unique().numel() == 200


def test_messages_are_read_as_they_were_written() -> None:
    numbers = [1, 2, 3, 7, 8, 1000, 2**20 + 17, 1, 2**39]
    kls = [0.0, 0.125, 2.0, 8.0, 20.0, 3.0, 31.875, 0.0, 12.0]
    message = Message()
    bits = sum(Zipf(kl).push(message, k) for k, kl in reversed(list(zip(numbers, kls))))  # noqa: B905
    data = message.to_bytes()
    assert bits - 1 <= 8 * len(data) <= bits + 24
    again = Message.of(data)
    assert [Zipf(kl).pop(again) for kl in kls] == numbers
    assert again.state == 1


def test_codes_are_zipfs_law() -> None:
    """Class by class the shares of k^-s, but for what each has at least."""
    s = 1 + 1 / (3 + math.log2(math.e) / math.e + 1)
    k = torch.arange(1, 2**20, dtype=torch.float64)
    law, edges = k**-s, Zipf(3)._edges
    whole = float(torch.special.zeta(torch.tensor(s).double(), torch.tensor(1.0).double()))
    for c in (0, 1, 5, 10):
        share = float(law[2**c - 1 : 2 ** (c + 1) - 1].sum()) / whole
        assert (edges[c + 1] - edges[c]) / TOTAL == pytest.approx(share, rel=0.03)
    assert edges[0] == 0 and edges[-1] == TOTAL and min(torch.tensor(edges).diff()) > 0


# ------------------------------------------------------------------------------------- the bytes


@pytest.mark.parametrize("variance", ["small", "large", Exact()], ids=["small", "large", "exact"])
@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.EDMSDE(), sg.FlowSDE(T=0.999)], ids=str)
def test_bytes_come_back_as_the_state_that_was_sent(sde: sg.LinearSDE, variance: str) -> None:
    model, x = exact_model(DATA, sde), DATA.sample(4, torch.Generator().manual_seed(1))
    walk = sg.walks.log_snr(sde, 12)
    sent = compressed(model, x, walk=walk, until=7, variance=variance, extra=2, seed=3)  # type: ignore[arg-type]
    back = decompressed(model, sent.data, walk=walk, variance=variance)  # type: ignore[arg-type]
    assert torch.equal(back, model(sent.state, sent.level).x0)
    assert (
        abs(8 * (len(sent.data) - sent.head) - float(sent.bits.sum())) <= 24
    )  # 16 to begin, 8 to end
    flow = decompressed(model, sent.data, walk=walk, variance=variance, decoder=sg.UniPC())  # type: ignore[arg-type]
    assert flow.shape == x.shape and not torch.equal(flow, back)


def test_bytes_are_read_in_another_process(tmp_path: Path) -> None:
    """A network in single precision, images: bit for bit."""
    script = (
        "import sys, torch, sdegen as sg\n"
        "from sdegen.networks import UNet\n"
        "from sdegen.likelihood import compressed, decompressed\n"
        "torch.set_num_threads(1); torch.manual_seed(0)\n"
        "net = UNet(1, width=8, heads=2).eval()\n"
        "[torch.nn.init.normal_(p, 0, 0.05) for p in net.parameters()]\n"
        "model = sg.ScoreModel(net, sg.EDMSDE(), 'edm')\n"
        "walk = [80.0, 2.0, 0.7, 0.4, 0.002]\n"
        "if sys.argv[1] == 'write':\n"
        "    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(5)) / 2\n"
        "    sent = compressed(model, x, walk=walk, until=3, extra=1)\n"
        "    open('message', 'wb').write(sent.data)\n"
        "    torch.save(model(sent.state, sent.level).x0.detach(), 'wanted.pt')\n"
        "else:\n"
        "    back = decompressed(model, open('message', 'rb').read(), walk=walk)\n"
        "    assert torch.equal(back, torch.load('wanted.pt')) and back.std() > 0.1\n"
    )
    for what in ("write", "read"):
        python("-c", script, what, cwd=tmp_path)


def test_another_rounding_moves_little() -> None:
    model, x = exact_model(DATA, sg.VPSDE()), DATA.sample(3, torch.Generator().manual_seed(1))
    walk = sg.walks.log_snr(sg.VPSDE(), 10)
    sent = compressed(model, x, walk=walk, until=6, extra=1)

    def off(y: Tensor, t: Tensor) -> Tensor:
        return DATA.denoise(y, sg.VPSDE()(t)) * (1 + 1e-7)

    other = sg.ScoreModel(off, sg.VPSDE(), "x0")
    close(
        decompressed(other, sent.data, walk=walk),
        decompressed(model, sent.data, walk=walk),
        rtol=0,
        atol=1e-5,
    )


def test_what_was_sent_is_a_noisy_sample() -> None:
    """(x_t - alpha x0) / sigma has the second moments of noise, and x0 comes back as well."""
    V16 = torch.linspace(2, 0.1, 16, dtype=torch.float64)
    law = Gaussian(torch.zeros(16), V16)
    model, x = exact_model(law, sg.VPSDE()), law.sample(48, torch.Generator().manual_seed(2))
    sent = compressed(model, x, walk=even_walk(model, x, 5.0), until=3, chunk=6.0)
    z = (sent.state - sent.level.alpha * x) / sent.level.sigma
    assert float(z.square().mean()) == pytest.approx(1, abs=0.15)
    ideal = (V16 / (1 + (2 * sent.level.lam).exp() * V16)).mean()
    got = (model(sent.state, sent.level).x0 - x).square().mean()
    assert float(got / ideal) == pytest.approx(1, abs=0.15)
    assert 1.0 < float(sent.bits.mean() / sent.kl.mean()) < 2.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 1, 2, 2)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    model = sg.ScoreModel(pointwise, sg.VPSDE(), "x0")
    x, walk = 0.5 * normal(*shape), [1.0, 0.4, 0.2, 0.1, 1e-3]
    sent = compressed(model, x, walk=walk, until=3, extra=0, seed=-5)
    assert decompressed(model, sent.data, walk=walk).shape == shape
    again = compressed(model, x, walk=walk, until=3, extra=0, seed=-5)
    assert again.data == sent.data
    assert compressed(model, x, walk=walk, until=3, extra=0, seed=6).data != sent.data


# -------------------------------------------------------------------------------------- refusals

WALK = [1.0, 0.5, 0.3, 1e-3]


def message(sde: sg.LinearSDE, variance: str = "small") -> bytes:
    """Of two samples, after two steps."""
    x = DATA.sample(2, torch.Generator().manual_seed(0))
    how = {"walk": WALK, "until": 2, "extra": 0, "variance": variance}
    return compressed(exact_model(DATA, sde), x, **how).data  # type: ignore[arg-type]


def test_bytes_that_were_changed_are_refused_unread() -> None:
    """Cut, lengthened, or with one bit flipped: before the network is asked anything."""

    def never(y: Tensor, t: Tensor) -> Tensor:
        raise AssertionError

    model, data = sg.ScoreModel(never, sg.VPSDE(), "x0"), message(sg.VPSDE())
    with pytest.raises(AssertionError):
        decompressed(model, data, walk=WALK)
    changed = [data[:n] for n in range(len(data))]
    changed += [data + bytes([c]) * n for c in (0, 1, 255) for n in (1, 2, 20)]
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        changed.append(bytes(flipped))
    for each in changed:
        with refused("begin otherwise|cut, lengthened or changed"):
            decompressed(model, each, walk=WALK)


def test_another_variance_or_sde_is_refused() -> None:
    """On the same times, whichever of the two was the sender's."""
    sdes = {"vp": sg.VPSDE(), "sub-VP": sg.SubVPSDE(), "beta": sg.VPSDE(beta_max=19.0)}
    sent = {(n, v): message(sde, v) for n, sde in sdes.items() for v in ("small", "large")}
    for made, data in sent.items():
        for name, variance in sent:
            model = exact_model(DATA, sdes[name])
            if (name, variance) == made:
                assert decompressed(model, data, walk=WALK, variance=variance).shape == (2, 8)  # type: ignore[arg-type]
                continue
            with refused("another SDE or with another variance than Walk.*" + variance):
                decompressed(model, data, walk=WALK, variance=variance)  # type: ignore[arg-type]
        with refused("another variance than Walk.*Exact"):
            decompressed(exact_model(DATA, sdes[made[0]]), data, walk=WALK, variance=Exact())


def test_heads_and_messages_that_none_writes_are_refused() -> None:
    """Their CRC-32 is right: nothing is made, nor read for long, on their word."""
    model, body = exact_model(DATA, sg.VPSDE()), opened(message(sg.VPSDE()), 0)
    mark, seed, until, chunk, ndim = HEAD.unpack_from(body)
    at = HEAD.size + 4 * ndim
    rest, numbers = body[HEAD.size :], body[at:]
    for bad in (
        {"chunk": 0.0}, {"chunk": math.nan}, {"chunk": 1e300}, {"until": 0}, {"until": 2**32 - 1},
        {"ndim": 255},
    ):  # fmt: skip
        said = {"until": until, "chunk": chunk, "ndim": ndim, **bad}
        with refused("which compressed.* never does"):
            decompressed(model, sealed(HEAD.pack(mark, seed, *said.values()) + rest), walk=WALK)
    for shape in ((), (0, 8), (2, 0), (2**32 - 1, 8), (2, 2**31)):
        first = HEAD.pack(mark, seed, until, chunk, len(shape))
        with refused("have from 1 to 2147483648 numbers"):
            data = first + struct.pack(f"<{len(shape)}I", *shape) + numbers
            decompressed(model, sealed(data), walk=WALK)
    with refused("cut, lengthened or changed"):
        decompressed(model, sealed(body[: HEAD.size]), walk=WALK)
    number = int.from_bytes(numbers, "big")
    others = [numbers[:n] for n in range(1, len(numbers))]
    others += [numbers + bytes([c]) for c in (0, 1, 77, 255)] + [bytes(4)]
    others += [(number << 8 * n).to_bytes(len(numbers) + n, "big") for n in (2, 20)]
    for each in (*others, b"\xff" * 10_000):  # which says that steps are halved again and again
        with refused("cannot be read to its end|has no half"):
            decompressed(model, sealed(body[:at] + each), walk=WALK)


def test_a_head_is_its_numbers() -> None:
    x = normal(3, 2, 4)
    sent = compressed(sg.ScoreModel(pointwise, sg.VPSDE(), "x0"), x, walk=WALK, until=1, extra=0)
    assert sent.head == SEAL.size + HEAD.size + 4 * x.ndim == 49


def test_refusals() -> None:
    model, x, walk = exact_model(DATA, sg.VPSDE()), normal(2, 8), [1.0, 0.5, 0.3, 1e-3]
    data = compressed(model, x, walk=walk, until=1).data
    with refused("another walk"):
        decompressed(model, data, walk=[1.0, 0.4, 1e-3])
    with refused("begin otherwise"):
        decompressed(model, b"\x89PNG", walk=walk)
    with refused("chunk is a number of bits from 1 to 20, but it is 0"):
        compressed(model, x, walk=walk, chunk=0)
    with refused("until must be a whole number from 1 to 3, but it is 4"):
        compressed(model, x, walk=walk, until=4)
    with refused("seed must be"):
        compressed(model, x, walk=walk, seed=2.5)  # type: ignore[arg-type]
    with refused("not finite"):
        compressed(model, x * math.nan, walk=walk)
    with refused("'small' or 'large'"):
        rate_distortion(model, x, steps=4, variance="medium")  # type: ignore[arg-type]
    with refused("points must be a whole number from 1 to 4, but it is 5"):
        rate_distortion(model, x, steps=4, points=5)
    with refused("rate_distortion takes steps"):
        rate_distortion(model, x)
    with refused("bits a step must be above 0"):
        even_walk(model, x, 0.0)
    with refused("needs alpha and sigma"):
        rate_distortion(sg.ScoreModel(pointwise, Plain(), "score"), x, steps=4)
    with refused("flow_only"):
        compressed(sg.ScoreModel(pointwise, sg.FlowSDE(), flow_only=True), x, walk=walk)
