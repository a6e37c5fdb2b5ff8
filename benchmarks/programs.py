"""Systems of the field as programs of examples/, for the gallery."""

from __future__ import annotations

from systems import System

PROGRAMS: list[System] = [
    System(
        "lora",
        "adapting",
        "LoRA",
        ["Hu et al. (2022)"],
        "W' = W + (alpha / r) B A,  B = 0 at first;  A and B alone are trained",
        "A model of thin digits learns bold ones by adapters of rank 6 beside its layers, and by "
        "all of its weights. Means over two seeds.",
        ["sdegen/networks/adapters.py", "sdegen/training/frozen.py", "sdegen/runs/adapting.py"],
        "lora",
        script="lora.py",
        needs=["edm"],
    ),
    System(
        "controlnet",
        "adapting",
        "ControlNet",
        ["Zhang et al. (2023)"],
        "net'(x, hint) = decode(h_i + Z_i(copy(x + Z(hint))_i)),  h = encode(x),  Z = 0 at first",
        "A locked model of digits is shown means of 2 x 2 pixels, or edges, or both by two "
        "controls that were trained apart; that of means is a mean over two seeds.",
        ["sdegen/networks/control.py", "sdegen/training/frozen.py", "sdegen/runs/adapting.py"],
        "control",
        script="control.py",
        needs=["edm"],
    ),
    System(
        "dreambooth",
        "adapting",
        "DreamBooth",
        ["Ruiz et al. (2023)"],
        "loss(instances, new class) + weight loss(the frozen model's own samples, their classes)",
        "A class more is learned of five pictures, alone and beside samples that the model made "
        "before: a data set of two. Means over two seeds.",
        ["sdegen/data/mixed.py", "sdegen/networks/widening.py"],
        "dreambooth",
        script="dreambooth.py",
        needs=["edm"],
    ),
]
"""In the order of the gallery, after those of commands."""
