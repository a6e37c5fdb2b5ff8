"""Adapters: few weights beside those of a trained network, which stays.  LoRA, by peft."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from sdegen.checks import listed, number, whole
from sdegen.networks.magnitude import MPConditioning, MPLinear

TARGETS = ("qkv", "leave", "conv1", "conv2")
"""Layers by the ends of their names: of U-Nets attention's and the two convolutions of a block."""

CONVS = nn.Conv1d, nn.Conv2d, nn.Conv3d
LAYERS = nn.Linear, *CONVS, nn.Embedding, nn.MultiheadAttention, MPLinear
"""Layers that take an adapter, as do transformers' Conv1D: beside them, and of an ``MPLinear``
inside, where it turns W."""
WHOLE = nn.MultiheadAttention, MPConditioning
"""Layers that ask those inside them for their weights: an adapter beside these would be silent."""


def lora(
    net: nn.Module,
    rank: int = 4,
    targets: Sequence[str] | None = None,
    alpha: float | None = None,
) -> nn.Module:
    """The network itself, in which some layers W have become W + (alpha / rank) B A, with A of
    ``rank`` rows, and B zero at first; nothing else of it takes gradients from here on.

    Of a convolution A is one to ``rank`` channels, and B one of width 1.  Hu et al. (2022), eq. 3.

    targets: the ends of the layers' names; None: those of ``TARGETS`` that it has, and all linear
    layers of one without attention and convolutions.  alpha: the rank where None.

    Layers are called ``.base_layer`` from here on: the network's own weights are loaded before.
    ValueError where peft is missing (``pip install 'sdegen[adapters]'``), for targets that are
    the end of no layer's name or of none that takes an adapter, as EDM2's convolutions, for none
    of them, a rank below 1, an alpha that is 0 or no number, and a network that has adapters
    already.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("peft is not installed: pip install 'sdegen[adapters]'.") from error
    whole("rank", rank)
    if alpha is not None and number("alpha", alpha) == 0:
        raise ValueError("alpha = 0 leaves an adapter silent, whatever it learns.")
    if any(name.endswith("base_layer") for name, _ in net.named_modules()):
        raise ValueError(f"This {type(net).__name__} has adapters already.")
    layers = adapted(net, targets)
    turned = [f"{name}.weight" for name, each in layers.items() if isinstance(each, MPLinear)]
    beside = [name for name in layers if f"{name}.weight" not in turned]
    config = LoraConfig(
        r=rank,
        lora_alpha=float(rank if alpha is None else alpha),  # type: ignore[arg-type]
        target_modules="|".join(map(re.escape, beside)) if beside else [],
        target_parameters=turned or None,
    )
    inject_adapter_in_model(config, net)
    return net


def adapted(net: nn.Module, targets: Sequence[str] | None) -> dict[str, nn.Module]:
    """The layers of a network that get an adapter, by their names."""
    layers = {name: each for name, each in net.named_modules() if name}
    whole_ones = [name for name, each in layers.items() if isinstance(each, WHOLE)]
    takes = {
        name: each
        for name, each in layers.items()
        if (isinstance(each, LAYERS) or type(each).__name__ == "Conv1D")
        and name.rpartition(".")[0] not in whole_ones
    }
    kind = type(net).__name__
    if targets is None:
        found = called(takes, TARGETS)
        if not called(takes, ("qkv", "conv1")):
            found = {name: each for name, each in takes.items() if isinstance(each, nn.Linear)}
        if not found:
            raise ValueError(f"No layer of the {kind} takes an adapter by default: say targets.")
        return found
    if not listed("targets", targets):
        raise ValueError("An adapter is of some layers, but targets is empty.")
    for target in targets:
        if not (those := called(layers, [target])):
            raise ValueError(f"No layer of the {kind} is called {target!r}.")
        if not called(takes, [target]):
            raise ValueError(
                f"{target!r} of the {kind} is {type(next(iter(those.values()))).__name__}, but an "
                "adapter is of linear layers, convolutions and tables."
            )
    return called(takes, targets)


def called(layers: dict[str, Any], ends: Sequence[str]) -> dict[str, Any]:
    """Those of some layers whose names end with one of ``ends``."""
    return {
        name: each
        for name, each in layers.items()
        if any(name == end or name.endswith(f".{end}") for end in ends)
    }
