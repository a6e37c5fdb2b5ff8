"""Stable Diffusion's pipelines, tiny and of random weights, with our scheduler and as ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

import sdegen as sg
from sdegen.guidance import CFG
from sdegen.interop.diffusers import load
from sdegen.interop.scheduler import SdegenScheduler
from tests.cases import close
from tests.interop.folders import told, vae

pytestmark = pytest.mark.slow

BASE = diffusers.DDIMScheduler(
    beta_schedule="scaled_linear",
    beta_start=0.00085,
    beta_end=0.012,
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
)


def drawn(*shape: int, seed: int) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TOKENS, NONE, Z = drawn(1, 8, 6, seed=1), drawn(1, 8, 6, seed=2), drawn(1, 4, 4, 4, seed=3)
EMBEDS = {"prompt_embeds": TOKENS, "negative_prompt_embeds": NONE, "guidance_scale": 5.0}


def pipeline(kind: str, scheduler: Any, channels: int = 4) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    small = CLIPTextConfig(
        vocab_size=50,
        hidden_size=6,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        eos_token_id=49,
        bos_token_id=48,
        pad_token_id=49,
    )
    made = getattr(diffusers, f"StableDiffusion{kind}Pipeline")(
        vae=vae(),
        text_encoder=CLIPTextModel(small).eval(),
        tokenizer=None,
        unet=told(channels),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def ours(**how: Any) -> Any:
    return SdegenScheduler.from_config(BASE.config, **how)


def test_text_to_image_is_sample_with_guidance(tmp_path: Path) -> None:
    """Both ways: theirs loaded and sampled here, ours in their pipeline."""
    theirs = pipeline("", BASE)
    theirs.save_pretrained(tmp_path)
    found = load(tmp_path)
    guided = CFG(
        found.model.given(encoder_hidden_states=TOKENS), 5.0, {"encoder_hidden_states": NONE}
    )
    how: dict[str, Any] = {"num_inference_steps": 8, "height": 8, "width": 8, **EMBEDS}
    how |= {"output_type": "latent"}
    for made, mine in (
        (theirs, sg.sample(guided, Z, solver=sg.DDIM(), **found.how(8))),
        (pipeline("", ours(guidance_scale=5.0)), sg.sample(guided, Z, nfe=16, denoise=True)),
        (
            pipeline("", ours(solver="unipc")),
            sg.sample(guided, Z, solver="unipc", nfe=16, denoise=True),
        ),
    ):
        got = made(latents=Z.clone(), **how).images
        close(got, mine, rtol=0, atol=2e-5 * float(mine.abs().max()))


def test_image_to_image_and_inpainting_run() -> None:
    image, mask = drawn(1, 3, 8, 8, seed=4).sigmoid(), (drawn(1, 1, 8, 8, seed=5) > 0).float()
    how: dict[str, Any] = {"image": image, "output_type": "np", **EMBEDS}
    small = pipeline("Img2Img", ours())(strength=0.3, num_inference_steps=10, **how).images
    large = pipeline("Img2Img", ours())(strength=0.9, num_inference_steps=10, **how).images
    assert small.shape == large.shape == (1, 8, 8, 3) and not (small == large).all()
    for channels in (4, 9):
        made = pipeline("Inpaint", ours(solver="dpmpp"), channels)
        done = made(mask_image=mask, num_inference_steps=6, height=8, width=8, **how).images
        assert done.shape == (1, 8, 8, 3)


def hinted(kind: str, scheduler: Any) -> Any:
    """A pipeline with a ControlNet that says something."""
    net = told()
    control = diffusers.ControlNetModel.from_unet(net, conditioning_embedding_out_channels=(4, 8))
    for k, weights in enumerate(control.parameters()):
        weights.data += 0.02 * drawn(*weights.shape, seed=k)
    made = pipeline("", scheduler)
    parts = {**made.components, "unet": net, "controlnet": control}
    parts.pop("image_encoder", None)
    hints = getattr(diffusers, f"StableDiffusionControlNet{kind}Pipeline")
    new = hints(**parts, requires_safety_checker=False)
    new.set_progress_bar_config(disable=True)
    return new


IMAGE, MASK = drawn(1, 3, 8, 8, seed=4).sigmoid(), (drawn(1, 1, 8, 8, seed=5) > 0).float()
SIDES = {"height": 8, "width": 8}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("", {**SIDES, "num_images_per_prompt": 2}),
        ("", {**SIDES, "eta": 1.0}),
        ("Img2Img", {"image": IMAGE, "strength": 0.3}),
        ("Img2Img", {"image": IMAGE, "strength": 1.0}),
        ("Inpaint", {"image": IMAGE, "mask_image": MASK, **SIDES}),
        ("Inpaint", {"image": IMAGE, "mask_image": MASK, "strength": 0.6, **SIDES}),
        ("InstructPix2Pix", {"image": IMAGE}),
        ("ControlNet", {"image": IMAGE, **SIDES}),
        ("ControlNetImg2Img", {"image": IMAGE, "control_image": IMAGE, "strength": 0.7}),
    ],
)
def test_pipelines_end_where_ddim_does(kind: str, how: dict[str, Any]) -> None:
    """On its trailing steps, whose number divides that of the betas: noise, masks, hints and
    strengths come in at the same places, and are drawn from the same generators."""
    theirs = diffusers.DDIMScheduler.from_config(
        BASE.config, timestep_spacing="trailing", set_alpha_to_one=True
    )
    mine = ours(solver="ddpm" if "eta" in how else "ddim", walk="trailing")
    images = []
    for scheduler in (theirs, mine):
        if kind.startswith("ControlNet"):
            made = hinted(kind.removeprefix("ControlNet"), scheduler)
        else:
            made = pipeline(kind, scheduler, 8 if kind == "InstructPix2Pix" else 4)
        many = "num_images_per_prompt" in how
        generators = [torch.Generator().manual_seed(k) for k in range(2 if many else 1)]
        generator = generators if many else generators[0]
        asked = {"num_inference_steps": 10, "output_type": "np", "generator": generator}
        images.append(made(**asked, **how, **EMBEDS).images)
    close(images[1], images[0], rtol=0, atol=2e-5)
