"""Networks of a run get of the data what they ask for, or are told in a sentence what there is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdegen.networks import MLP, UNet
from sdegen.runs.network import build_network, facts
from tests.cases import refused

HERE = "tests.runs.test_network"


class Asks(nn.Module):
    """Keeps what it was given."""

    def __init__(self, shape: list[int], classes: int, size: int = 0, depth: int = 2) -> None:
        super().__init__()
        self.got = (shape, classes, size, depth)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return x


class Plain(nn.Module):
    """Asks for nothing, and is told no class."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x


class Needs(Plain):
    """Asks for what no data have."""

    def __init__(self, context: int) -> None:
        super().__init__()


class Hands(UNet):
    """Takes anything, for the class it inherits from."""

    def __init__(self, **how: Any) -> None:
        super().__init__(width=8, heads=2, **how)


class Narrow(Plain):
    """Takes anything, for a class that does not."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)


def made(name: str, shape: tuple[int, ...], classes: int = 0, **more: Any) -> Any:
    target = f"sdegen.networks.{name}" if name in ("MLP", "UNet") else f"{HERE}.{name}"
    return build_network({"_target_": target, **more}, ["tests"], shape, classes)


def test_what_samples_say_of_themselves() -> None:
    assert facts((5,), 3) == {"shape": [5], "classes": 3, "dim": 5}
    series = {"shape": [2, 64], "classes": 0, "channels": 2, "dims": 1, "length": 64}
    assert facts((2, 64), 0) == series
    images = {"shape": [3, 8, 8], "classes": 0, "channels": 3, "dims": 2}
    assert facts((3, 8, 8), 0) == {**images, "size": 8}
    assert facts((3, 8, 4), 0) == {**images, "shape": [3, 8, 4]}
    assert facts((1, 4, 4, 4), 0)["dims"] == 3


@pytest.mark.parametrize("shape", [(2, 8), (3, 8, 4), (1, 4, 4, 4)])
def test_the_u_net_fits_series_images_and_volumes(shape: tuple[int, ...]) -> None:
    net = made("UNet", shape, 2, width=8, heads=2)
    x = torch.randn(3, *shape)
    assert net(x, torch.rand(3), torch.tensor([0, 1, 2])).shape == x.shape
    assert isinstance(made("MLP", (5,), width=8), MLP)


def test_a_network_of_ones_own_gets_what_it_names_and_no_more() -> None:
    assert made("Asks", (3, 8, 8), 4).got == ([3, 8, 8], 4, 8, 2)
    assert made("Asks", (3, 8, 4), 4, depth=5).got == ([3, 8, 4], 4, 0, 5)
    assert made("Asks", (5,), 3, size=7, depth=4).got == ([5], 3, 7, 4)  # what is said stays
    assert made("Plain", (5,)).width == 8
    assert made("Hands", (1, 8, 8), 2).conditioning.classes == 2


def test_what_is_wrong_is_one_sentence_of_what_was_typed() -> None:
    with refused(r"UNet asks for channels, but samples of shape \(2,\) only have shape, classes"):
        made("UNet", (2,))
    with refused(r"MLP asks for dim, but .* \(1, 8, 8\) .*net=unet for series.* say \+net.dim="):
        made("MLP", (1, 8, 8))
    with refused(r"Needs asks for context, but .* say \+net.context="):
        made("Needs", (5,))
    with refused(r"unexpected keyword argument 'widht'. It takes \(width: 'int' = 8\)"):
        made("Plain", (5,), widht=3)
    with refused("As it takes any keyword, it was given classes, dim of the data; one that names"):
        made("Narrow", (5,))
    with refused("conditional=true gives .* labels as y, but .*Plain is called with .x, t."):
        made("Plain", (5,), 3)
    with refused("cannot be built: Error loading .*Nowhere"):
        made("Nowhere", (5,))
    with refused("asks for os.system, but only sdegen, torch.optim may be called"):
        build_network({"_target_": "os.system"}, [], (2,), 0)
