"""Tiny diffusers models with random weights, and folders of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch


def unet(classes: int | None = None, out: int = 1) -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=out,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
        attention_head_dim=4,
        num_class_embeds=classes,
    ).eval()


def told(channels: int = 4) -> Any:
    """A network of latents that is told tokens."""
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=4,
        in_channels=channels,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=6,
        attention_head_dim=2,
    ).eval()


def dit() -> Any:
    """A transformer of 1,000 classes, as its pipeline takes them, with a learned variance."""
    torch.manual_seed(0)
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=4,
        patch_size=2,
        num_embeds_ada_norm=1000,
    ).eval()


def vae(**how: Any) -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        norm_num_groups=2,
        sample_size=8,
        **how,
    ).eval()


def saved(folder: Path, net: Any, scheduler: Any) -> Path:
    """A network and its scheduler, side by side."""
    net.save_pretrained(folder)
    scheduler.save_pretrained(folder)
    return folder
