"""EDM2's network: sizes at the start and in training, and what it does outside of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

import sdegen as sg
from sdegen.data import ArrayData
from sdegen.distill import MeanFlow
from sdegen.files import read_tensors
from sdegen.networks import EDM2
from sdegen.networks.magnitude import (
    Directions,
    Fourier,
    MPAttention,
    MPConv,
    MPLinear,
    mp_cat,
    mp_silu,
    mp_sum,
    unit,
)
from sdegen.training import Trainer, TrainSettings
from sdegen.training.activations import checkpoint_blocks
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import close, normal, refused


def net_of(**how: Any) -> EDM2:
    torch.manual_seed(0)
    return EDM2(**{"channels": 1, "width": 8, "heads": 2, **how})


def loud(net: EDM2) -> EDM2:
    """With its gains at 1, so that there is an output."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.ndim == 0:
                parameter.fill_(1.0 if name == "gain" else 0.3)
    return net


def directions(net: nn.Module) -> list[Directions]:
    return [each for each in net.modules() if isinstance(each, Directions)]


def test_layers_keep_a_mean_square_of_one() -> None:
    """Each by itself, on normal inputs, to what so many numbers tell."""
    torch.manual_seed(0)
    a, b = torch.randn(512, 64), torch.randn(512, 64)
    for y in (mp_silu(a), mp_sum(a, b), mp_sum(a, b, 0.7), MPLinear(64, 64)(a), unit(3 * a, (1,))):
        assert abs(float(y.detach().square().mean()) - 1) < 0.03
    both = mp_cat(a, b[:, :16])
    # Either part has half of the square of all.
    close(both[:, :64].square().sum() / both.square().sum(), 0.5, rtol=0.03)
    assert abs(float(both.square().mean()) - 1) < 0.03
    series = torch.randn(64, 16, 512)
    assert abs(float(MPConv(16, 64, 3, 1)(series).detach().square().mean()) - 1) < 0.03
    assert abs(float(Fourier(4096)(torch.randn(64)).square().mean()) - 1) < 0.03


def test_activations_start_with_a_mean_square_of_one() -> None:
    """Every layer's, in the mean over initialisations, of series: edges count for little."""
    found: dict[str, float] = {}

    def look(name: str) -> Any:
        def hook(module: nn.Module, given: Any, out: Tensor) -> None:
            found[name] = found.get(name, 0.0) + float(out.detach().square().mean()) / 12

        return hook

    for seed in range(12):
        torch.manual_seed(seed)
        how: dict[str, Any] = {"dims": 1, "mults": (1, 1), "attention": [], "classes": 5}
        net = EDM2(32, width=32, **how).eval()
        for name, module in net.named_modules():
            module.register_forward_hook(look(name))
        with torch.no_grad():
            net(torch.randn(4, 32, 64), torch.randn(4), torch.randint(0, 5, (4,)))
    silent = {k for k in found if k.endswith(".condition")} | {"leave", ""}
    assert all(found.pop(name) == 0 for name in silent)  # by gains of 0
    found.pop("middle.attention.leave")  # a mean over values of 32 places, which are not alike
    assert len(found) > 20
    assert all(0.8 < value < 1.25 for value in found.values()), found


def test_the_output_starts_at_zero_and_can_leave_it() -> None:
    net, x, t = net_of(classes=3, numbers=("w",)), torch.randn(4, 1, 8, 8), torch.rand(4)
    out = net(x, t, torch.tensor([0, 1, 2, 3]), w=2.0)
    assert out.shape == x.shape and not out.any()
    (out - 1).square().mean().backward()
    moved = [n for n, p in net.named_parameters() if p.grad is not None and p.grad.any()]
    assert moved == ["gain"]


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.SGD])
def test_weights_are_unit_vectors_after_any_step(make: Any) -> None:
    net = loud(net_of())
    optimizer, x, t = make(net.parameters(), lr=0.3), torch.randn(4, 1, 8, 8), torch.rand(4)
    begun = [each.weight.detach().clone() for each in directions(net)]
    for _ in range(3):
        net(x, t).square().mean().backward()
        optimizer.step(), optimizer.zero_grad()
    assert not any(torch.equal(w, e.weight) for w, e in zip(begun, directions(net), strict=True))
    net(x, t)
    for each in directions(net):
        used = each.unit().detach().flatten(1).norm(dim=1)
        assert float((used - 1).abs().max()) < 1e-3  # of the least size that is divided by
        rows = each.weight.detach().flatten(1)
        assert float((rows.square().mean(1).sqrt() - 1).abs().max()) < 1e-3


def steps_of(net: EDM2, calls: int = 1) -> list[Tensor]:
    """Three steps of Adam; each one's gradients, and the weights in the end."""
    found, x, t = list[Tensor](), normal(4, 1, 8, 8, dtype=torch.float32), torch.linspace(0, 1, 4)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        sum(net(x, t + i).square().mean() for i in range(calls)).backward()  # type: ignore[union-attr]
        found += [p.grad.clone() for p in net.parameters() if p.grad is not None]
        optimizer.step()
    return found + [p.detach() for p in net.parameters()]


@pytest.mark.parametrize("calls", [1, 2])
def test_blocks_that_run_twice_have_the_same_gradients_to_the_last_bit(calls: int) -> None:
    """Weights are put back once a step: not again where a block is computed again, nor by the
    second call of a loss, whose first one is still to be gone back through."""
    net = loud(net_of(dropout=0.3))
    other = copy.deepcopy(net)
    assert len(checkpoint_blocks(other)) == 6
    found = []
    for each in (net, other):
        torch.manual_seed(1)
        found.append(steps_of(each, calls))
    assert len(found[0]) == 4 * len(list(net.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, in its compiler
@pytest.mark.parametrize(
    "backend",
    ["eager", *(pytest.param(b, marks=pytest.mark.slow) for b in ("aot_eager", "inductor"))],
)
def test_compiled_it_is_put_back_as_well(backend: str) -> None:
    net = loud(net_of(mults=(1,), attention=[]))
    other = copy.deepcopy(net)
    other.compile(backend=backend)
    for a, b in zip(steps_of(other), steps_of(net), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        other(torch.randn(1, 1, 8, 8), torch.rand(1))
    for each in directions(other):
        size = each.weight.detach().flatten(1).square().mean(1).sqrt()
        assert float((size - 1).abs().max()) < 1e-3


def test_in_eval_mode_nothing_is_written() -> None:
    net = loud(net_of())
    with torch.no_grad():
        for each in directions(net):
            each.weight.mul_(3)
    x, t = torch.randn(2, 1, 8, 8), torch.rand(2)
    asleep = copy.deepcopy(net).eval()
    before = {k: v.clone() for k, v in asleep.state_dict().items()}
    out = asleep(x, t)
    assert all(torch.equal(before[k], v) for k, v in asleep.state_dict().items())
    trained = net(x, t)  # is put back to its size, and says the same
    torch.testing.assert_close(trained, out, rtol=1e-3, atol=1e-3)
    assert any(not torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_the_size_of_weights_says_nothing() -> None:
    """So that gradients are at right angles to them."""
    net = loud(net_of()).double().eval()
    x, t = torch.randn(2, 1, 8, 8).double(), torch.rand(2)
    net(x, t).square().sum().backward()
    for each in directions(net):
        rows, slope = each.weight.flatten(1), each.weight.grad
        assert slope is not None
        along = (rows.detach() * slope.flatten(1)).sum(1) / rows.detach().norm(dim=1)
        assert float(along.abs().max()) < 1e-3 * float(slope.flatten(1).norm(dim=1).max()) + 1e-12


def test_classes_numbers_and_what_stands_beside_are_heard() -> None:
    net = loud(net_of(classes=3, numbers=("w",), beside=2)).eval()
    x, t, c = torch.randn(2, 1, 8, 8), torch.rand(2), torch.randn(2, 2, 8, 8)

    def said(y: Any = None, c: Tensor = c, **how: Any) -> Tensor:
        found: Tensor = net(x, t, y, c, **how).detach()
        return found

    none = torch.tensor([3, 3])
    torch.testing.assert_close(said(), said(none))
    assert torch.equal(said(1), said(torch.tensor([1, 1])))  # one class for all
    with refused("y is '1', expected a class label"):
        said("1")
    torch.testing.assert_close(said(), said(w=0.0))  # what is not given is 0
    assert not torch.allclose(said(), said(torch.tensor([0, 0])))
    assert not torch.allclose(said(w=1.0), said(w=2.0))
    assert not torch.allclose(said(), said(c=2 * c))
    with refused("labels outside 0 .. 3"):
        said(torch.tensor([0, 4]))
    with refused("expected torch.int64"):
        said(torch.tensor([0.0, 1.0]))
    with refused("The network was given v, but the numbers that it knows are w"):
        said(v=1.0)
    with refused("w has shape"):
        said(w=torch.zeros(3))


def test_shapes_are_checked() -> None:
    net, t = net_of(), torch.rand(2)
    for shape in ((2, 2, 8, 8), (2, 1, 7, 8), (2, 1, 8)):
        with refused("x has shape"):
            net(torch.randn(shape), t)
    x = torch.randn(2, 1, 8, 8)
    with refused("t has shape"):
        net(x, torch.rand(3))
    with refused("y was given, but the network has no classes"):
        net(x, t, torch.tensor([0, 0]))
    with refused("c was given"):
        net(x, t, c=x)
    with refused("c has shape"):
        net_of(beside=2)(x, t, c=x)
    with refused("beside = 2: it is given c"):
        net_of(beside=2)(x, t)
    with refused("heads = 3 does not divide"):
        MPAttention(8, 3)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_one_sample_of_any_dimension(dims: int) -> None:
    net = loud(net_of(dims=dims, mults=(1, 1, 2), attention=[2]))
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(1, 1, *[8] * dims, dtype=dtype)
        out = net.to(dtype)(x, torch.zeros(1))
        assert out.shape == x.shape and out.dtype == dtype and bool(out.isfinite().all())


def test_derivatives_and_other_weights_in_eval_mode() -> None:
    net = loud(net_of()).double().eval()
    x, t = torch.randn(1, 1, 4, 4).double(), torch.rand(1)
    v, h = torch.randn_like(x), 1e-5
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        _, slope = jvp(lambda x: net(x, t), (x,), (v,))
    numeric = (net(x + h * v, t) - net(x - h * v, t)) / (2 * h)
    torch.testing.assert_close(slope, numeric.detach(), rtol=1e-5, atol=1e-7)
    others = {k: p.detach() * 2 for k, p in net.named_parameters() if p.ndim}
    torch.testing.assert_close(
        functional_call(net, others, (x, t)), net(x, t), rtol=1e-3, atol=1e-4
    )


def training(folder: Path, loss: Any, steps: int, **how: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    net = net_of(**how)
    settings = TrainSettings(
        steps=steps, batch_size=4, warmup=0, save_every=100, device="cpu", snapshot_every=2
    )
    x = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    model = sg.ScoreModel(net, sg.FlowSDE(), predicts="velocity", time="tau")
    return Trainer(
        model, ArrayData(x), loss, lambda w: torch.optim.Adam(w, lr=1e-2), settings, folder
    )


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Its averages are of weights that were put back to their size."""
    whole = training(tmp_path / "whole", sg.dsm_loss, 4)
    list(whole.steps())
    list(training(tmp_path / "part", sg.dsm_loss, 3).steps())
    list(training(tmp_path / "part", sg.dsm_loss, 4).steps())
    a, b = (read_tensors(tmp_path / n / CHECKPOINT)[0] for n in ("whole", "part"))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    averaged = whole.averaged
    before = {k: v.clone() for k, v in averaged.state_dict().items()}
    averaged(torch.randn(2, 1, 4, 4), 0.5)
    assert all(torch.equal(before[k], v) for k, v in averaged.state_dict().items())


def test_losses_with_several_calls_and_derivatives_train_it(tmp_path: Path) -> None:
    """The second call of a step puts weights back that the first one's gradient goes through."""
    run = training(tmp_path, MeanFlow(), 2, numbers=("jump",))
    records = list(run.steps())
    assert all(bool(v.isfinite().all()) for v in run.model.state_dict().values()) and records
