"""Adapters: few weights beside those of a trained network, which stays.  LoRA, by peft."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sdegen.checks import number, whole

TARGETS = ("qkv", "leave", "conv1", "conv2")
"""Layers by the ends of their names: of U-Nets attention's and the two convolutions of a block."""


def lora(
    net: nn.Module,
    rank: int = 4,
    targets: Sequence[str] = TARGETS,
    alpha: float | None = None,
) -> nn.Module:
    """The network itself, in which some layers W have become W + (alpha / rank) B A, with A of
    ``rank`` rows, and B zero at first; nothing else of it takes gradients from here on.

    Of a convolution A is one to ``rank`` channels, and B one of width 1.  Hu et al. (2022), eq. 3.

    targets: the ends of the layers' names.  alpha: the rank where None.

    Layers are called ``.base_layer`` from here on: the network's own weights are loaded before.
    ValueError where peft is missing (``pip install 'sdegen[adapters]'``), for targets that no
    layer's name ends with, for none of them, a rank below 1, an alpha that is 0 or no number, and
    a network that has adapters already.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("peft is not installed: pip install 'sdegen[adapters]'.") from error
    whole("rank", rank)
    if not targets:
        raise ValueError("An adapter is of some layers, but targets is empty.")
    if alpha is not None and number("alpha", alpha) == 0:
        raise ValueError("alpha = 0 leaves an adapter silent, whatever it learns.")
    names = [name for name, _ in net.named_modules()]
    if any(name.endswith("base_layer") for name in names):
        raise ValueError(f"This {type(net).__name__} has adapters already.")
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise ValueError(f"No layer of the {type(net).__name__} is called {target!r}.")
    scale = float(rank if alpha is None else alpha)
    config = LoraConfig(r=rank, lora_alpha=scale, target_modules=list(targets))  # type: ignore[arg-type]
    inject_adapter_in_model(config, net)
    return net
