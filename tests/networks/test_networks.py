"""Networks: precision, conditioning, attention and refusals."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from sdegen import EDMSDE, ScoreModel
from sdegen.networks import ADM, EDM2, MLP, DiT, TimeEmbedding, Transformer, UNet
from sdegen.networks.layers import group_norm
from tests.cases import ROOT, refused

CONF = ROOT / "conf" / "net"
Net = TypeVar("Net", bound=nn.Module)


def awake(net: Net) -> Net:
    """The network with every parameter moved off its start, zeros included, reproducibly."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.05 * noise.to(parameter.dtype))
    return net.eval()


SMALL: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "mlp": (MLP, {"width": 32, "depth": 2}),
    "unet": (UNet, {"width": 16, "mults": (1, 2), "blocks": 2}),
    "adm": (ADM, {"width": 8, "mults": (1, 2), "blocks": 1, "attention": [1], "head_width": 8}),
    "dit": (DiT, {"width": 16, "depth": 2, "heads": 2}),
    "transformer": (Transformer, {"width": 16, "depth": 2, "heads": 2}),
    "edm2": (EDM2, {"width": 16, "heads": 2}),
}


def build(kind: str, classes: int = 0) -> nn.Module:
    make, arguments = SMALL[kind]
    return awake(make(3, classes=classes, **arguments))


def batch(kind: str, size: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (size, 3) if kind == "mlp" else (size, 3, 8, 4)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x, torch.rand(size, generator=generator, dtype=torch.float64) * 4 - 2


HEAD = ["grow.0.2.weight", "grow.0.2.bias"]  # the last convolution of the U-Net
LAST = {"unet": HEAD, "transformer": ["leave.weight"], "edm2": ["gain"]}
kinds = pytest.mark.parametrize("kind", list(SMALL))


@kinds
def test_output_starts_at_zero_and_can_leave_it(kind: str) -> None:
    make, arguments = SMALL[kind]
    net, (x, t) = make(3, **arguments), batch(kind)
    out = net(x.float(), t.float())
    assert out.shape == x.shape and not out.any()
    (out - 1).square().mean().backward()
    moved = [name for name, p in net.named_parameters() if p.grad is not None and p.grad.any()]
    assert moved == LAST.get(kind, ["leave.weight", "leave.bias"])


@kinds
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)], ids=str
)
def test_lower_precision_agrees_with_float64(
    kind: str, dtype: torch.dtype, tolerance: float
) -> None:
    net = build(kind).double()
    x, t = batch(kind)
    exact = net(x, t)
    low = net.to(dtype)(x.to(dtype), t.float())
    assert exact.dtype == torch.float64 and low.dtype == dtype
    assert (low - exact).norm() < tolerance * exact.norm()


@kinds
def test_autocast_agrees_with_float32(kind: str) -> None:
    net, y = build(kind, classes=4), torch.tensor([3, 0, 4, 1, 1])
    x, t = (v.float() for v in batch(kind))
    exact = net(x, t, y)
    with torch.autocast("cpu", torch.bfloat16):
        low = net(x, t, y)
    assert low.dtype == torch.bfloat16  # so that autocast did something
    assert (low - exact).norm() < 4e-2 * exact.norm()


@pytest.mark.parametrize("kind", [kind for kind in SMALL if kind != "mlp"])
def test_channels_last_changes_nothing(kind: str) -> None:
    net, (x, t) = build(kind).double(), batch(kind)
    plain = net(x, t)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last = net(x.to(memory_format=torch.channels_last), t)
    # What a network of tokens returns is in the order in which its patches were made.
    assert kind in ("dit", "transformer") or last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, plain, rtol=0, atol=1e-11)


@kinds
def test_a_sample_does_not_see_its_batch(kind: str) -> None:
    net, (x, t) = build(kind, classes=4).double(), batch(kind)
    y = torch.tensor([3, 0, 4, 1, 1])
    together = net(x, t, y)
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-12)
    assert net(x[:0], t[:0], y[:0]).shape == x[:0].shape


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "unet"])
def test_learns_a_function_of_state_time_and_class(kind: str) -> None:
    """Its variance is 1/4 from x, 1/2 from t, 1 from y: ignoring one leaves 0.14 or more."""
    torch.manual_seed(0)
    net = build(kind, classes=2).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(150 if kind == "mlp" else 60):
        x, t = torch.randn(64, *batch(kind)[0].shape[1:]), torch.rand(64) * 4 - 2
        y = torch.randint(2, (64,))
        target = x / 2 + (torch.sin(3 * t) + 2 * y - 1).view(-1, *[1] * (x.ndim - 1))
        loss = (net(x, t, y) - target).square().mean() / 1.75
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.07


def waves(embedding: TimeEmbedding, t: Tensor) -> Tensor:
    """What the MLP inside the embedding is given."""
    seen: list[Tensor] = []
    with embedding.hidden.register_forward_pre_hook(lambda _, args: seen.append(args[0])):
        embedding(t)
    return seen[0]


def test_time_labels_are_told_apart_to_a_thousandth() -> None:
    t = torch.arange(-2000, 2001, dtype=torch.float64) / 1000
    h = waves(TimeEmbedding(8).double(), t)
    gap = torch.cdist(h, h).fill_diagonal_(math.inf)
    # 2 - 2 cos(f d) summed over f: at least the fastest wave's part, at a distance of 0.001.
    assert gap.min() > 0.06
    order = gap.argmin(dim=1)
    assert ((order - torch.arange(len(t))).abs() == 1).all()  # neighbours look most alike


def test_a_cast_keeps_the_frequencies_and_checkpoints_leave_them_out() -> None:
    net = UNet(1, width=16)
    frequencies = net.conditioning.time.frequencies.clone()
    assert frequencies[0] == 0.25 and frequencies[-1] == 64 and len(frequencies) == 32
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert torch.equal(net.to(dtype).conditioning.time.frequencies.float(), frequencies)
    assert not [name for name in net.state_dict() if "frequencies" in name]


def test_bfloat16_network_sees_float32_labels() -> None:
    """Computed in bfloat16, the angle of 64 t would be off by up to half a radian."""
    t = torch.linspace(-2, 2, 101)
    embedding = TimeEmbedding(8)
    exact = waves(embedding, t)
    low = waves(embedding.to(torch.bfloat16), t)
    assert (low.float() - exact).abs().max() < 2**-8


@kinds
def test_no_class_is_the_last_label(kind: str) -> None:
    net, (x, t) = build(kind, classes=4).double(), batch(kind)
    labelled = [net(x, t, torch.full((5,), y)) for y in range(5)]
    assert torch.equal(net(x, t), labelled[4])
    assert torch.equal(net(x, t, 2), labelled[2])  # one class for all
    with pytest.raises(ValueError, match="y is '2', expected a class label"):
        net(x, t, "2")
    assert all(not torch.allclose(other, labelled[4]) for other in labelled[:4])


@kinds
@pytest.mark.parametrize("label", [-1, 5])
def test_labels_out_of_range_are_refused(kind: str, label: int) -> None:
    net, (x, t) = build(kind, classes=4), batch(kind)
    with pytest.raises(ValueError, match=r"outside 0 \.\. 4"):
        net(x.float(), t, torch.tensor([0, 1, 2, 3, label]))


@kinds
def test_wrong_labels_and_times_are_refused(kind: str) -> None:
    net, (x, t) = build(kind, classes=4), batch(kind)
    x = x.float()
    with pytest.raises(ValueError, match=r"y is torch.int64 of shape \(4,\), expected .* \(5,\)"):
        net(x, t, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"y is torch.float32"):
        net(x, t, torch.zeros(5))
    for wrong in (t[0], t[:1], t[:, None]):
        with pytest.raises(ValueError, match=r"t has shape .* expected \(5,\)"):
            net(x, wrong)
    with pytest.raises(ValueError, match=r"no classes: build it with classes > 0"):
        build(kind)(x, t, torch.zeros(5, dtype=torch.int64))


def test_wrong_states_are_refused() -> None:
    t = torch.rand(2)
    for shape in ((2, 4), (2,), (2, 3, 1)):
        with pytest.raises(ValueError, match=r"x has shape .* expected \(B, 3\)"):
            build("mlp")(torch.randn(shape), t)
    for image in ((2, 1, 8, 8), (2, 3, 7, 8), (2, 3, 8, 7), (2, 3, 8)):
        with pytest.raises(ValueError, match=r"expected \(B, 3, H, W\) .* multiples of 2"):
            build("unet")(torch.randn(image), t)
    for dims, length, nearest in ((1, 62, "60 or 64"), (1, 2, "4"), (3, 9, "8 or 12")):
        net = UNet(2, width=8, mults=(1, 1, 1), heads=2, dims=dims)
        with pytest.raises(ValueError, match=f"cut or pad {length} to {nearest}, or take fewer"):
            net(torch.randn(2, 2, *[length] * dims), t)
        with pytest.raises(ValueError, match=rf"\(dims = {dims}\)"):
            net(torch.randn(2, 2, *[4] * (dims + 1)), t)


def test_every_pixel_sees_every_pixel_and_the_finest_skip_is_used() -> None:
    net = awake(UNet(1, width=16, mults=(1, 1, 1), attention=())).double()
    x = torch.randn(1, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(net(x, torch.zeros(1))[0, 0, 0, 0], x)
    assert (grad != 0).all()
    # Low levels cannot tell a pixel from its neighbour: that sharpness comes along the skip.
    assert grad[0, 0, 0, 0].abs() > 10 * grad[0, 0, 16:, 16:].abs().max()


# torch's own forward-mode rules are scripted.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@kinds
def test_forward_mode_works_with_the_math_kernel(kind: str) -> None:
    net, (x, t) = build(kind).double(), batch(kind)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        out = net(forward_ad.make_dual(x, v), t)
        jvp = forward_ad.unpack_dual(out).tangent
    h = 1e-5
    difference = (net(x + h * v, t) - net(x - h * v, t)) / (2 * h)
    torch.testing.assert_close(jvp, difference, rtol=0, atol=1e-7)
    if x.ndim == 4:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x, v = (each.to(memory_format=torch.channels_last) for each in (x, v))
        with sdpa_kernel(SDPBackend.MATH):
            last = torch.func.jvp(lambda x: net(x, t), (x,), (v,))[1]
        torch.testing.assert_close(last, jvp, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dims", [1, 3])
def test_an_axis_that_nothing_varies_along_may_be_left_out(dims: int) -> None:
    """A U-Net whose kernels only have their middle column acts on each column alone, as the U-Net
    of one dimension less with that column does; and of columns that are all alike norms and
    attention see what they see of one."""
    flat, high = sorted((2, dims))
    arguments: dict[str, Any] = {"width": 8, "mults": (1, 2), "heads": 2}
    low = awake(UNet(2, dims=flat, **arguments)).double()
    full = awake(UNet(2, dims=high, **arguments)).double()
    weights = low.state_dict()
    for name, kernel in full.state_dict().items():
        if kernel.ndim == 2 + high:
            spread = torch.zeros_like(kernel)
            spread[..., kernel.shape[-1] // 2] = weights[name]
            weights[name] = spread
    full.load_state_dict(weights)
    x = torch.randn(3, 2, *[4] * flat, dtype=torch.float64)
    alike = x[..., None].expand(*x.shape, 4)
    t = torch.rand(3, dtype=torch.float64)
    torch.testing.assert_close(full(alike, t), low(x, t)[..., None].expand(alike.shape))


def test_a_network_of_images_is_what_it_was() -> None:
    """Its weights' names, which finished runs have in their files, know no ``dims``."""
    names = UNet(1, width=8, heads=2).state_dict()
    assert names.keys() == UNet(1, width=8, heads=2, dims=1).state_dict().keys()
    assert {"shrink.0.weight", "down.0.residual.conv1.weight", "grow.1.1.weight", *HEAD} < set(
        names
    )
    assert names["down.0.residual.conv1.weight"].shape == (8, 8, 3, 3)


def test_dropout_acts_in_training_only() -> None:
    net = awake(UNet(1, width=16, dropout=0.5))
    x, t = torch.randn(2, 1, 4, 4), torch.rand(2)
    assert torch.equal(net(x, t), net(x, t))
    net.train()
    assert not torch.equal(net(x, t), net(x, t))


@settings(max_examples=12, deadline=None)
@given(
    width=st.sampled_from([4, 12, 20, 28]),
    mults=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    blocks=st.integers(1, 2),
    size=st.lists(st.integers(1, 3), min_size=3, max_size=3),
    channels=st.integers(1, 4),
    dims=st.integers(1, 3),
)
def test_any_architecture_keeps_the_shape(
    width: int, mults: list[int], blocks: int, size: list[int], channels: int, dims: int
) -> None:
    attention, size = range(len(mults)), size[:dims]
    net = awake(UNet(channels, width, mults, blocks, attention, classes=2, heads=2, dims=dims))
    x = torch.randn(2, channels, *(2 ** (len(mults) - 1) * side for side in size))
    assert net(x, torch.rand(2)).shape == x.shape


@given(st.integers(1, 2000))
def test_groups_divide_the_channels(channels: int) -> None:
    groups = group_norm(channels).num_groups
    assert channels % groups == 0 and groups <= 32
    assert channels // groups >= min(channels, 4)  # never a group of one channel, without a mean


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name, (kind, _) in SMALL.items()],
)
def test_configuration_lists_all_but_what_the_data_decides(name: str, kind: type) -> None:
    from omegaconf import OmegaConf

    conf: Any = OmegaConf.to_object(OmegaConf.load(CONF / f"{name}.yaml"))
    assert conf.pop("_target_") == f"sdegen.networks.{kind.__name__}"
    signature = inspect.signature(kind).parameters
    asked = {"dim"} if kind is MLP else {"channels", "dims", "beside"}
    told = {"token_width", "words", "length"}  # by who has tokens
    told &= set(signature)
    # "numbers" is the teacher's to say, "out" the model's, by its heads.
    assert set(signature) - set(conf) == {*asked, *told, "classes", "numbers", "out"}
    for key, value in conf.items():
        default = signature[key].default
        assert value == (list(default) if isinstance(default, tuple) else default)


class TestBeside:
    """A picture beside the state: Palette's condition."""

    X, T = torch.randn(2, 3, 8, 8), torch.tensor([0.1, 0.7])

    def test_the_first_layer_alone_sees_it(self) -> None:
        """With its weights there the network is one without, and c is not scaled with x."""
        torch.manual_seed(0)
        plain = UNet(3, width=8, heads=2)
        torch.manual_seed(0)
        net = UNet(3, width=8, heads=2, beside=1)
        weights = dict(plain.state_dict())
        first = weights["shrink.0.weight"]
        beside = torch.ones(len(first), 1, 3, 3)
        net.load_state_dict(weights | {"shrink.0.weight": torch.cat([first, beside], 1)})
        for each in (net, plain):
            with torch.no_grad():
                each.grow[0][-1].weight.normal_(generator=torch.Generator().manual_seed(1))
        dark = torch.zeros(2, 1, 8, 8)
        assert torch.equal(net(self.X, self.T, c=dark), plain(self.X, self.T))
        assert not torch.equal(net(self.X, self.T, c=dark + 1), plain(self.X, self.T))
        seen = []
        handle = net.shrink[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        model = ScoreModel(net, EDMSDE(), "edm").given(c=dark + 1)
        model(self.X, 20.0)
        handle.remove()
        assert (seen[0][:, 3:] == 1).all() and (seen[0][:, :3].abs() < 1).all()

    def test_what_stands_beside_is_told_or_refused(self) -> None:
        net, c = UNet(3, width=8, heads=2, beside=2), torch.zeros(2, 2, 8, 8)
        with refused(r"beside = 2: it is given c of shape \(2, 2, 8, 8\).* model.given\(c=...\)"):
            net(self.X, self.T)
        with refused(r"c has shape \(2, 1, 8, 8\), expected \(2, 2, 8, 8\)"):
            net(self.X, self.T, c=c[:, :1])
        with refused("the network sees nothing beside x: build it with beside > 0"):
            UNet(3, width=8, heads=2)(self.X, self.T, c=c)
        with refused("beside must be a whole number >= 0, but it is -1"):
            UNet(3, beside=-1)
        assert UNet(3).state_dict().keys() == net.state_dict().keys()
