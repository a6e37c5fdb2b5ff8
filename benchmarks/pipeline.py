"""Our scheduler beside diffusers' own in one loop, on a model trained on the spot.

    python benchmarks/pipeline.py                        writes benchmarks/pipeline.json
    python benchmarks/pipeline.py --quick --out x.json   in seconds

A diffusers UNet2DModel learns the digits (8 x 8, eps, DDPM's betas). Every scheduler then makes
the same images from the same noise, in the loop of diffusers' pipelines: the median, over the
images, of the root mean square distance to where the probability flow of the model ends at sigma
= 0 (UniPC-3, 1,000 calls, float64). Each is as its users take it by from_config, its spacing
"trailing" where it has one; clips are off.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import digits
from sdegen.files import write_json
from sdegen.interop.scheduler import SdegenScheduler

OUT = Path(__file__).with_suffix(".json")
CALLS = (5, 10, 20, 40)
BASE = {"clip_sample": False}
TRAILING = {"timestep_spacing": "trailing"}


def network() -> Any:
    """A small U-Net of diffusers."""
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        layers_per_block=1,
        attention_head_dim=16,
    )


def trained(steps: int) -> tuple[Any, sg.ScoreModel]:
    """The network after so many steps of denoising score matching, and the model that it is."""
    net, data = network(), digits("train").x
    model = sg.ScoreModel(
        lambda x, t: net(x, t, return_dict=False)[0],
        sg.DiscreteVPSDE(),
        "eps",
        time="1000t-1",
        module=net,
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss = sg.dsm_loss(model, data[torch.randint(len(data), (128,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval().requires_grad_(False)
    return net, model


def schedulers() -> dict[str, Any]:
    """By name: ours and theirs."""
    config = {**diffusers.DDPMScheduler(**BASE).config, **TRAILING}
    return {
        "sdegen recommended": SdegenScheduler.from_config(config),
        "sdegen unipc": SdegenScheduler.from_config(config, solver="unipc"),
        "sdegen dpmpp, trailing": SdegenScheduler.from_config(
            config, solver="dpmpp", walk="trailing"
        ),
        "diffusers UniPC": diffusers.UniPCMultistepScheduler.from_config(config),
        "diffusers UniPC, karras": diffusers.UniPCMultistepScheduler.from_config(
            config, use_karras_sigmas=True
        ),
        "diffusers DPM++(2M)": diffusers.DPMSolverMultistepScheduler.from_config(config),
        "diffusers DPM++(2M), karras": diffusers.DPMSolverMultistepScheduler.from_config(
            config, use_karras_sigmas=True
        ),
        "diffusers DDIM": diffusers.DDIMScheduler.from_config(config),
    }


@torch.no_grad()
def made(net: Any, scheduler: Any, x: Tensor, calls: int) -> Tensor:
    """Images from noise, by the loop that diffusers' pipelines are."""
    scheduler.set_timesteps(calls)
    for t in scheduler.timesteps:
        told = scheduler.scale_model_input(x, t)
        x = scheduler.step(net(told, t, return_dict=False)[0], t, x, return_dict=False)[0]
    return x


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=OUT)
    args = parse.parse_args()
    torch.set_num_threads(1)
    n, fine = (4, 60) if args.quick else (64, 1000)
    net, model = trained(3 if args.quick else 1500)
    start = torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = sg.sample(model, start.double(), solver=sg.UniPC(3), nfe=fine, denoise=True)
    record: dict[str, Any] = {
        "what": f"{n} digits by a UNet2DModel, median RMS distance to the flow's end",
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "rows": {},
    }
    for name, scheduler in schedulers().items():
        row = {}
        for calls in CALLS:
            off = made(net, scheduler, start, calls).double() - exact
            row[str(calls)] = float(f"{off.flatten(1).square().mean(1).sqrt().median():.3g}")
        record["rows"][name] = row
        print(f"{name:30s}" + "  ".join(f"{k}: {v:g}" for k, v in row.items()), flush=True)
    write_json(args.out, record)


if __name__ == "__main__":
    main()
