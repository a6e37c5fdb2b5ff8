"""What networks cost: forward and backward beside diffusers', a training step beside its parts.

    python benchmarks/network_cost.py              writes benchmarks/network_cost.json, prints it
    python benchmarks/network_cost.py --compiled   adds what torch.compile makes of both to it

One CPU thread, float32, both sides of a ratio in turns; medians and quartiles of the ratios of
pairs. DiT and ADM have the weights of DiTTransformer2DModel and UNet2DModel. A step of the
Trainer's is loss, backward, clip, AdamW and averages; its parts are the same loss, backward and
optimiser, in a bare loop.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import ArrayData
from sdegen.interop.networks import ours
from sdegen.networks import DiT, UNet
from sdegen.training import Trainer, TrainSettings

PAIRS = 15
DIT = {
    "num_attention_heads": 6,
    "attention_head_dim": 64,
    "in_channels": 3,
    "num_layers": 4,
    "sample_size": 16,
    "num_embeds_ada_norm": 10,
}
UNET = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (64, 128),
    "layers_per_block": 1,
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
    "attention_head_dim": 64,
    "num_class_embeds": 10,
}


def quartiles(values: list[float]) -> list[float]:
    """First quartile, median, third."""
    return [round(q, 4) for q in statistics.quantiles(values, n=4, method="inclusive")]


def in_turns(one: Callable[[], None], two: Callable[[], None], pairs: int = PAIRS) -> Any:
    """Seconds of the processor's own time of two things done in turns, and their ratio."""
    seconds: dict[str, list[float]] = {"one": [], "two": []}
    for run in (one, two):
        run()  # the first call is not what the next ones are
    for i in range(pairs):
        order = [("one", one), ("two", two)]
        for name, run in order if i % 2 else reversed(order):
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    ratios = [a / b for a, b in zip(seconds["one"], seconds["two"], strict=True)]
    return {name: quartiles(values) for name, values in seconds.items()} | {
        "ratio": quartiles(ratios)
    }


def milliseconds(run: Callable[[], Any], n: int = 30) -> float:
    """The median of the processor's own time."""
    seconds = []
    for _ in range(n):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return round(1e3 * statistics.median(seconds), 2)


def beside_theirs(net: Any, backward: bool, last: bool = False, compiled: bool = False) -> Any:
    """Ours with their weights, beside theirs; ``last``: channels last."""
    mine = ours(net.train())
    layout = torch.channels_last if last else torch.contiguous_format
    for each in (net, mine):
        each.to(memory_format=layout)
    x = torch.randn(8, 3, 16, 16).to(memory_format=layout)
    t, y = torch.randint(1000, (8,)), torch.randint(10, (8,))
    one, two = (torch.compile(each) if compiled else each for each in (mine, net))

    def run(call: Callable[[], Tensor]) -> None:
        if not backward:
            with torch.no_grad():
                call()
            return
        call().square().mean().backward()
        for each in (net, mine):
            each.zero_grad(set_to_none=True)

    return in_turns(
        partial(run, lambda: one(x, t, y)),
        partial(run, lambda: two(x, t, y, return_dict=False)[0]),
    )


def whole_step(make: Callable[[], torch.nn.Module]) -> Any:
    """A Trainer's step beside loss, backward and optimiser alone, on batches of 128; and what it
    does besides, in milliseconds."""
    sde, data = sg.VPSDE(), torch.randn(512, 1, 8, 8)
    model = sg.ScoreModel(make(), sde, "edm")
    settings = TrainSettings(steps=10_000, batch_size=128, log_every=10_000, save_every=10_000)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model, ArrayData(data), sg.dsm_loss, partial(torch.optim.AdamW, lr=1e-4), settings,
            Path(folder),
        )  # fmt: skip
        batches = trainer.batches()
        bare = sg.ScoreModel(make(), sde, "edm")
        optimiser = torch.optim.AdamW(bare.parameters(), lr=1e-4)

        def step() -> None:
            trainer.update(*next(batches))

        def parts() -> None:
            x0 = data[:128]
            sg.dsm_loss(bare, x0).mean().backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        found = in_turns(step, parts, PAIRS)
        sg.dsm_loss(trainer.model, data[:128]).mean().backward()
        besides: dict[str, Callable[[], Any]] = {
            "batch": lambda: next(batches),
            "clip": lambda: trainer.fabric.clip_gradients(
                trainer.objective, trainer.optimizer, max_norm=1.0, error_if_nonfinite=False
            ),
            "averages": lambda: trainer.averages.update(trainer.model),
        }
        found["besides, ms"] = {name: milliseconds(run) for name, run in besides.items()}
        batches.close()
    return found


def main(compiled: bool) -> None:
    """Measure, write and print."""
    path = Path(__file__).with_suffix(".json")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dit, unet = diffusers.DiTTransformer2DModel(**DIT), diffusers.UNet2DModel(**UNET)
    for block in dit.transformer_blocks:  # one embedding of time and class, as published weights
        block.norm1.emb.load_state_dict(dit.transformer_blocks[0].norm1.emb.state_dict())
    record: dict[str, Any] = {
        "what": "quartiles of seconds, and of ratios one / two; float32, 1 CPU thread, no GPU",
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "processor": "2-core x86-64 server (virtual machine)",
        "pairs": PAIRS,
        "shapes": "batches of 8, 3 x 16 x 16; DiT 384 wide, 4 deep; U-Nets 64 and 128 wide",
    }
    if compiled:
        record = json.loads(path.read_text())
    for name, net in (("DiT", dit), ("ADM", unet)):
        for way, backward in (("forward", False), ("forward and backward", True)):
            key = f"{name}, {way}{', compiled' * compiled}: ours / diffusers'"
            found = record[key] = beside_theirs(net, backward, compiled=compiled)
            print(key, found["ratio"], flush=True)
    if compiled:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return
    record["ADM, forward and backward, channels last: ours / diffusers'"] = beside_theirs(
        unet, True, True
    )
    for name, make in (
        ("UNet", lambda: UNet(1, 32)),
        ("DiT", lambda: DiT(1, 80, 4, 4)),
    ):
        record[f"{name}: Trainer's step / its parts"] = whole_step(make)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(path.read_text())


if __name__ == "__main__":
    main("--compiled" in sys.argv)
