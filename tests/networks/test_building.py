"""Every network of the room: built without memory, copied, pickled, saved; and what none is."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdegen import networks
from sdegen.networks import (
    ADM,
    EDM2,
    EGNN,
    MLP,
    Codebook,
    Conditioning,
    Controlled,
    DiT,
    FIRDown,
    FIRUp,
    Flattened,
    Joined,
    KLAutoencoder,
    Nearest,
    Pool,
    Rescaled,
    TimeEmbedding,
    Transformer,
    Trunk,
    UNet,
    Video,
    VQAutoencoder,
)
from tests.cases import normal, refused

T, Y = torch.tensor([0.1, 0.7]), torch.tensor([0, 2])
X, V = normal(2, 1, 4, 4, dtype=torch.float32), normal(2, 3, dtype=torch.float32)
CLIPS, IMAGES = normal(2, 1, 3, 4, 4, dtype=torch.float32), torch.eye(3)[:2] > 0
CLOUDS = normal(2, 3, 3, dtype=torch.float32)
TOLD: dict[str, Any] = {"classes": 2, "numbers": ["w"]}
MORE: dict[str, Any] = {**TOLD, "beside": 1, "token_width": 6, "words": 4}
GIVEN: dict[str, Any] = {"t": T, "y": Y, "w": 0.5}
WORDS: dict[str, Any] = {**GIVEN, "c": X, "tokens": torch.tensor([[1, 4], [2, 0]])}

EVERY: dict[type[nn.Module], tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    MLP: (lambda: MLP(3, 16, 1, **TOLD), {"x": V, **GIVEN}),
    UNet: (lambda: UNet(1, 8, heads=2, **MORE), {"x": X, **WORDS}),
    ADM: (lambda: ADM(1, 8, (1, 2), 1, [1], head_width=8, **MORE), {"x": X, **WORDS}),
    DiT: (lambda: DiT(1, 16, 2, 2, **MORE), {"x": X, **WORDS}),
    Transformer: (lambda: Transformer(1, 16, 2, 2, **MORE), {"x": X, **WORDS}),
    EDM2: (lambda: EDM2(1, 8, heads=2, beside=1, **TOLD), {"x": X, **GIVEN, "c": X}),
    Video: (
        lambda: Video(UNet(1, 8, heads=2, beside=1, **TOLD)),
        {"x": CLIPS, **GIVEN, "c": CLIPS, "images": IMAGES},
    ),
    Controlled: (
        lambda: Controlled(UNet(1, 8, heads=2, **TOLD), 1),
        {"x": X, **GIVEN, "hint": X, "strength": 0.5},
    ),
    Trunk: (lambda: Trunk(1, 5, 8, heads=2), {"x": X, "t": T}),
    EGNN: (lambda: EGNN(2, 8, 1, dims=1, **TOLD), {"x": CLOUDS, **GIVEN, "there": IMAGES}),
    Flattened: (lambda: Flattened(MLP(16, 8, 1)), {"x": X, "t": T}),
    Joined: (lambda: Joined(MLP(3, 16, 1), MLP(3, 8, 1)), {"x": V, "t": T}),
    KLAutoencoder: (lambda: KLAutoencoder(1, 2, 8), {"x": X}),
    VQAutoencoder: (lambda: VQAutoencoder(1, 2, 8, codes=8), {"x": X}),
    Codebook: (lambda: Codebook(8, 3), {"z": V}),
    Conditioning: (lambda: Conditioning(8, **TOLD), {"t": T, "y": Y, "batch": 2}),
    TimeEmbedding: (lambda: TimeEmbedding(8), {"t": T}),
    **{part: (part, {"x": X}) for part in (FIRDown, FIRUp, Nearest, Pool)},
    Rescaled: (Rescaled, {"x": X, "h": X}),
}
"""Each class, one of it, and what it is called with."""
every = pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)


def test_no_network_is_forgotten() -> None:
    public = [getattr(networks, name) for name in networks.__all__]
    modules = {k for k in public if isinstance(k, type) and issubclass(k, nn.Module)}
    assert {k for k in modules if not getattr(k, "__abstractmethods__", None)} == {*EVERY}


def awake(kind: type[nn.Module]) -> nn.Module:
    """At rest, with nothing at zero."""
    torch.manual_seed(0)
    net = EVERY[kind][0]()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net.eval()


def said(net: nn.Module, kind: type[nn.Module]) -> list[Tensor]:
    """All tensors that come back, their draws the same."""
    torch.manual_seed(1)
    with torch.no_grad():
        out = net(**EVERY[kind][1])
    return [each for each in (out if isinstance(out, tuple) else [out]) if torch.is_tensor(each)]


def alike(kind: type[nn.Module], one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(said(one, kind), said(other, kind), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@every
def test_it_is_built_without_memory_and_filled_by_a_file(kind: type[nn.Module]) -> None:
    """What a file does not have, as frequencies, included."""
    net = awake(kind)
    with torch.device("meta"):
        empty = EVERY[kind][0]().eval()
    assert all(each.is_meta for each in [*empty.parameters(), *empty.buffers()])
    full = empty.to_empty(device="cpu")
    full.load_state_dict(net.state_dict())
    assert said(net, kind) and alike(kind, net, full)


@every
def test_it_is_copied_pickled_and_saved(kind: type[nn.Module]) -> None:
    net, file = awake(kind), io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    pickled = torch.load(file, weights_only=False)
    other = EVERY[kind][0]().eval()
    other.load_state_dict(net.state_dict())
    for each in (copy.deepcopy(net), pickled, other):
        assert alike(kind, net, each)
        with torch.no_grad():
            for p in each.parameters():
                p.fill_(3.0)  # its own
    assert alike(kind, net, awake(kind))


NETS = {kind: EVERY[kind][0] for kind in (UNet, ADM, DiT, Transformer, EDM2, Trunk, MLP)}
LEVELS = (UNet, ADM, EDM2, Trunk)
SMALL: dict[type[nn.Module], dict[str, Any]] = {
    UNet: {"channels": 1, "width": 8, "heads": 2},
    ADM: {"channels": 1, "width": 8, "mults": (1, 2), "attention": [1], "head_width": 8},
    DiT: {"channels": 1, "width": 16, "depth": 1, "heads": 2},
    Transformer: {"channels": 1, "width": 16, "depth": 1, "heads": 2},
    EDM2: {"channels": 1, "width": 8, "heads": 2},
    Trunk: {"channels": 1, "out": 2, "width": 8, "heads": 2},
    MLP: {"dim": 2, "width": 8, "depth": 1},
}
WRONG: list[tuple[tuple[type[nn.Module], ...], str, list[Any], str]] = [
    (tuple(SMALL), "width", [0, -8, 8.5, "8", None, True], "width must be a whole number >= 1"),
    (tuple(SMALL), "out", [0, -1, 1.5, "2"], "out must be a whole number >= 1"),
    ((UNet, ADM, DiT, Transformer, EDM2, Trunk), "channels", [0, -1, 1.5], "channels must be a"),
    ((UNet, ADM, DiT, Transformer, EDM2, Trunk), "dims", [0, 4, "2", None], "dims = .*, expected"),
    ((DiT, Transformer), "dims", [3], r"dims = 3, expected 1 \(series\) or 2 \(images\)\."),
    ((DiT, Transformer, MLP), "depth", [0, 1.5], "depth must be a whole number >= 1"),
    ((MLP,), "dim", [0, -1], "dim must be a whole number >= 1"),
    ((UNet, DiT, Transformer, EDM2, Trunk), "heads", [0, -2, 1.5], "heads must be a whole number"),
    ((UNet, DiT, Transformer, EDM2, Trunk), "heads", [3], "heads = 3 does not divide a level of"),
    ((UNet, ADM, EDM2), "dropout", [1, 1.5, -0.1, float("nan"), "0.1"], "dropout (=|must be)"),
    (LEVELS, "mults", [()], "must list levels, each once, among the 0 of mults"),
    (LEVELS, "mults", [(1, 0), (1, 1.5), (1, "2"), "12"], "Each of mults must be|mults must be"),
    (LEVELS, "mults", [2, None], "mults must be a list of whole numbers"),
    (LEVELS, "attention", [(1, 1), (5,), (-1,), (0.5,)], "must list levels, each once, among"),
    (LEVELS, "attention", [1, None, "1"], "attention must be a list of whole numbers"),
    (LEVELS, "blocks", [0, -1, 1.5], "blocks must be a whole number >= 1"),
    ((UNet, ADM, DiT, Transformer, EDM2), "beside", [-1, 0.5], "beside must be a whole number"),
    ((UNet, ADM, DiT, Transformer, EDM2, MLP), "classes", [-1, 1.5, "2"], "classes must be a"),
    (
        (UNet, ADM, DiT, Transformer, EDM2, MLP),
        "numbers",
        [["w", "w"], "jump", 1, ["a.b"], [1], ["c"], ["tokens"]],
        "numbers must be different names",
    ),
]


@pytest.mark.parametrize(("kinds", "name", "values", "words"), WRONG)
def test_settings_that_make_no_network_are_refused_in_a_sentence(
    kinds: tuple[type[nn.Module], ...], name: str, values: list[Any], words: str
) -> None:
    for kind in kinds:
        for value in values:
            if name == "out" and kind is not Trunk:
                kind(**{**SMALL[kind], "out": None})  # left open
            with refused(words):
                kind(**{**SMALL[kind], name: value})


def test_equal_multiples_are_levels_of_one_width() -> None:
    for kind in LEVELS:
        kind(**{**SMALL[kind], "mults": (1, 1), "attention": range(2)})
