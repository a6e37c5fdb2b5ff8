"""Networks of a run get of the data what they ask for, or are told in a sentence what there is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdegen.networks import MLP, UNet
from sdegen.runs.build import build
from sdegen.runs.network import build_model, build_network, facts
from sdegen.runs.train import refuse_idle
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


class Timeless(Plain):
    """Forgets the time."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return x


class Wants(Plain):
    """Cannot do without a condition."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return x


class Broken(Plain):
    """Raises an error that says little."""

    def __init__(self, error: str) -> None:
        super().__init__()
        raise {"key": KeyError("a"), "empty": ValueError(), "shapes": RuntimeError("2 is not 3")}[
            error
        ]


def closure(dim: int) -> Any:
    """A function that holds a module."""
    layer = nn.Linear(dim, dim)
    return lambda x, t: layer(x)


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
    assert facts((5,), 3, 2)["beside"] == 2


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


def test_settings_of_our_networks_are_not_those_of_ones_own() -> None:
    """What net=unet says stands in the configuration where only the target was typed."""
    with pytest.warns(UserWarning, match=r"Plain does not take mults, heads, set for sdegen"):
        net = made("Plain", (2, 8), width=5, mults=[1, 2], heads=4)
    assert net.width == 5
    with refused("unexpected keyword argument 'widht'"):
        made("Plain", (5,), widht=3)
    with refused("UNet cannot be built: .* unexpected keyword argument 'depth'"):
        made("UNet", (2, 8), depth=3)


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
    with refused(r"Nowhere cannot be built: .*test_network has no Nowhere \(did you mean"):
        made("Nowhere", (5,))
    with refused("x.Y cannot be built: there is no package x here: install it, or put its folder"):
        build({"_target_": "x.Y"}, ["x"])
    with refused(r"AdamX cannot be built: torch.optim has no AdamX \(did you mean Adam"):
        build({"_target_": "torch.optim.AdamX"}, [])
    with refused("asks for os.system, but only sdegen, torch.optim may be called"):
        build_network({"_target_": "os.system"}, [], (2,), 0)


def test_what_is_no_network_is_one_sentence() -> None:
    with refused(r"is called as net\(x, t\), .* but .*Timeless is called with \(x\): let"):
        made("Timeless", (5,))
    with refused(r"net\._target_ must give an nn.Module, .* but .*closure gives a function\."):
        made("closure", (5,))
    with refused(r"Broken cannot be built: KeyError: 'a'\."):
        made("Broken", (5,), error="key")
    with refused(r"Broken cannot be built: ValueError\."):
        made("Broken", (5,), error="empty")
    with refused(r"Broken cannot be built: RuntimeError: 2 is not 3\."):
        made("Broken", (5,), error="shapes")


def model_of(name: str, conditional: bool) -> Any:
    sde = {"_target_": "sdegen.VPSDE"}
    net = {"_target_": f"{HERE}.{name}"}
    config = {"net": net, "sde": sde, "model": {}, "packages": ["tests"]}
    return build_model({**config, "conditional": conditional}, (5,), 3)


def test_a_network_gets_all_that_it_is_called_with() -> None:
    with refused(r"conditional=false .* net\(x, t\), but .*Wants is called with \(x, t, y\): mis"):
        model_of("Wants", conditional=False)
    assert isinstance(model_of("Wants", conditional=True).net, Wants)
    assert isinstance(model_of("Asks", conditional=False).net, Asks)


def test_a_network_without_parameters_is_not_trained() -> None:
    with refused("mine.Net has no parameters to train: .* nn.ModuleList"):
        refuse_idle(Plain(), {"_target_": "mine.Net"})
    refuse_idle(MLP(2, width=4), {})
