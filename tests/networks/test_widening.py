"""A network that is widened says what it said, whatever stands beside the state, and learns from
there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import sdegen as sg
from sdegen.losses import Inpaint, paired
from sdegen.networks import ADM, EDM2, DiT, Transformer, UNet, lora, widened, with_classes
from tests.cases import close, normal, refused

NETS = {
    "unet": lambda **more: UNet(2, 8, heads=2, **more),
    "adm": lambda **more: ADM(2, 8, (1, 2), 1, [1], head_width=8, **more),
    "dit": lambda **more: DiT(2, 16, 1, 2, patch=2, **more),
    "transformer": lambda **more: Transformer(2, 16, 1, 2, patch=2, **more),
    "series": lambda **more: UNet(2, 8, heads=2, dims=1, **more),
}


def trained(kind: str, **more: Any) -> Any:
    """A network in float64 whose weights are all off zero."""
    net, draws = NETS[kind](**more).double(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=draws, dtype=p.dtype))
    return net


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("beside", [0, 1])
def test_it_says_what_it_said(kind: str, beside: int) -> None:
    old = trained(kind, beside=beside)
    new = widened(old, 3)
    space = (8,) if kind == "series" else (8, 8)
    x, c, t = normal(3, 2, *space), normal(3, beside + 3, *space), torch.rand(3).double()
    own = {"c": c[:, :beside]} if beside else {}
    with torch.no_grad():
        close(new(x, t, c=c), old(x, t, **own), atol=1e-12)
        assert old.beside == beside and new.beside == beside + 3
    new(x, t, c=c).square().mean().backward()
    first = new.shrink[0] if hasattr(new, "shrink") else new.enter
    assert first.weight.grad[:, -1].abs().max() > 0  # it sees what stands there
    assert all(p.grad is None for p in old.parameters())
    width = first.in_features if isinstance(first, nn.Linear) else first.in_channels
    assert width == first.weight.shape[1]
    # It is the network that is built so, and its weights are its.
    again = NETS[kind](beside=beside + 3).double()
    again.load_state_dict(new.state_dict())
    with torch.no_grad():
        close(again(x, t, c=c), new(x, t, c=c), atol=0)


def test_a_model_learns_to_fill_in_from_where_it_is() -> None:
    new = widened(trained("unet"), Inpaint(0.5).beside(2))
    model = sg.ScoreModel(new, sg.VPSDE(), "eps")
    before = paired(model, normal(4, 2, 8, 8), degrade=Inpaint(0.5)).mean()
    before.backward()
    assert bool(before.isfinite())


def test_what_cannot_be_widened_is_refused() -> None:
    with refused("more must be a whole number >= 1, but it is 0"):
        widened(UNet(1, 8, heads=2), 0)
    with refused("widened is of a UNet, ADM, DiT or Transformer, but the network is a EDM2"):
        widened(EDM2(1, 8, heads=2), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [*NETS])
def test_a_class_more_begins_as_none_and_the_others_are_what_they_were(kind: str) -> None:
    old = trained(kind, classes=3)
    new = with_classes(old, 2)
    space = (8,) if kind == "series" else (8, 8)
    x, t, y = normal(4, 2, *space), torch.rand(4).double(), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        close(new(x, t, y=y), old(x, t, y=y), atol=0)
        for nothing in (torch.full((4,), 5), torch.full((4,), 3), torch.full((4,), 4), None):
            close(new(x, t, y=nothing), old(x, t), atol=0)
    assert new.conditioning.classes == 5 and old.conditioning.classes == 3
    again = NETS[kind](classes=5).double()
    again.load_state_dict(new.state_dict())
    with refused("labels outside 0 .. 5"):
        new(x, t, y=torch.full((4,), 6))
    with refused("is a UNet without any"):
        with_classes(UNet(2, 8, heads=2), 1)
    with refused("is a EDM2"):
        with_classes(EDM2(2, 8, classes=2), 1)  # type: ignore[arg-type]


def test_an_adapter_is_laid_on_after_a_network_is_widened() -> None:
    """Of the layer that would be another one; of others it stays."""
    for kind, first in (("unet", "shrink.0"), ("adm", "enter"), ("dit", "enter")):
        with refused("The first layer has an adapter, .* widen the network first"):
            widened(lora(trained(kind), targets=[first]), 1)
        with refused("The table of classes has an adapter"):
            with_classes(lora(trained(kind, classes=3), targets=["label"]))
        net = lora(trained(kind, classes=3))
        assert len(with_classes(net).conditioning.label.weight) == 5
        assert widened(net, 1).beside == 1
