"""Saved diffusers models are sampled as diffusers samples them, or refused by name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import ArrayData
from sdegen.guidance import CFG, Thresholded
from sdegen.interop.diffusers import CODECS, Codec, Latents, Loaded, load, pretrained
from sdegen.interop.schedules import betas, read
from sdegen.latents import Latent, encoded, fit_scale
from tests.cases import close, refused
from tests.interop.folders import dit, saved, told, unet, vae

# diffusers hands tensors to numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

X = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
CALLS = 10


def theirs(scheduler: Any, net: Any, x: Tensor, calls: int = CALLS, **how: Any) -> Tensor:
    """diffusers' own loop."""
    scheduler.set_timesteps(calls)
    with torch.no_grad():
        for t in scheduler.timesteps:
            scale = getattr(scheduler, "scale_model_input", lambda x, t: x)
            told = scale(x, t)
            x = scheduler.step(net(told, t).sample, t, x, **how).prev_sample
    return x


def near(a: Tensor, b: Tensor, rtol: float) -> None:
    close(a, b, rtol=0, atol=rtol * float(b.abs().max()))


@pytest.mark.parametrize(
    ("schedule", "predicts", "spacing", "end"),
    [
        ("linear", "epsilon", "leading", True),
        ("linear", "epsilon", "leading", False),
        ("linear", "epsilon", "trailing", False),
        ("linear", "sample", "trailing", True),
        ("scaled_linear", "v_prediction", "trailing", True),
        ("scaled_linear", "epsilon", "leading", False),
        ("squaredcos_cap_v2", "v_prediction", "leading", False),
        ("squaredcos_cap_v2", "sample", "leading", True),
    ],
)
def test_ddim_is_theirs(
    tmp_path: Path, schedule: str, predicts: str, spacing: str, end: bool
) -> None:
    """On every schedule, output, spacing and end, in float32, of which x0-networks lose more."""
    scheduler = diffusers.DDIMScheduler(
        beta_schedule=schedule,
        prediction_type=predicts,
        timestep_spacing=spacing,
        set_alpha_to_one=end,
        clip_sample=False,
        steps_offset=int(spacing == "leading"),
    )
    net = unet()
    found = load(saved(tmp_path, net, scheduler))
    got = sg.sample(found.model, X, solver=sg.DDIM(), **found.how(CALLS))
    near(got, theirs(scheduler, net, X), 1e-3 if predicts == "sample" else 1e-5)


def test_one_step_is_told_or_is_x0(tmp_path: Path) -> None:
    """One that ends above sigma = 0 is a walk; one that denoises is x0, as the refusal says."""
    how = {"clip_sample": False, "timestep_spacing": "trailing"}
    for end in (False, True):
        scheduler, net = diffusers.DDIMScheduler(set_alpha_to_one=end, **how), unet()
        found = load(saved(tmp_path / str(end), net, scheduler))
        if end:
            with refused(r"One step of DDIMScheduler that denoises is no walk: .*sde\(1\)\)\.x0"):
                found.how(1)
            got = found.model(X, found.said.sde(float(found.said.times(1)))).x0.detach()
        else:
            got = sg.sample(found.model, X, solver=sg.DDIM(), **found.how(1))
        near(got, theirs(scheduler, net, X, calls=1), 1e-4)


def test_zero_terminal_snr_is_theirs(tmp_path: Path) -> None:
    scheduler = diffusers.DDIMScheduler(
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    net = unet()
    found = load(saved(tmp_path, net, scheduler))
    assert found.said.sde.ends_without_signal  # type: ignore[attr-defined]
    got = sg.sample(found.model, X, solver=sg.DDIM(), **found.how(CALLS))
    near(got, theirs(scheduler, net, X), 1e-5)


@pytest.mark.parametrize(
    "clip",
    [
        {"clip_sample": True},
        {"clip_sample": True, "clip_sample_range": 0.3},
        {"clip_sample": False, "thresholding": True},
        {"clip_sample": False, "thresholding": True, "sample_max_value": 1.2},
        {"clip_sample": False, "thresholding": True, "sample_max_value": 50.0},
    ],
    ids=str,
)
def test_clips_and_thresholds_are_theirs(tmp_path: Path, clip: dict[str, Any]) -> None:
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing", **clip)
    net = unet()
    found = load(saved(tmp_path, net, scheduler))
    model = found.thresholded(found.model)
    assert isinstance(model, Thresholded)
    got = sg.sample(model, X, solver=sg.DDIM(), **found.how(CALLS))
    near(got, theirs(scheduler, net, X, use_clipped_model_output=True), 2e-4)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_dpm_solver_is_theirs(tmp_path: Path, order: int, spacing: str) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        solver_order=order, timestep_spacing=spacing, steps_offset=1
    )
    net = unet()
    found = load(saved(tmp_path, net, scheduler))
    got = sg.sample(found.model, X, solver=sg.DPMSolverPP(order), **found.how(CALLS))
    near(got, theirs(scheduler, net, X), 1e-5)


@pytest.mark.parametrize(
    "how", ["use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"]
)
def test_levels_spaced_by_sigma_are_theirs(how: str) -> None:
    """The last is the first beta's, which their float32 knows to four digits."""
    scheduler = diffusers.DPMSolverMultistepScheduler(**{how: True})
    found = read(said(scheduler))
    scheduler.set_timesteps(CALLS)
    rho = found.sde(found.times(CALLS)).rho
    close(rho[:-1], scheduler.sigmas[: len(rho) - 1], rtol=1e-5)
    close(rho[-1], scheduler.sigmas[len(rho) - 1], rtol=1e-4)
    close(rho[-1], math.sqrt(1e-4 / (1 - 1e-4)))


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_flow_matching_is_theirs(tmp_path: Path, shift: float) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    net = unet()
    found = load(saved(tmp_path, net, scheduler))
    got = sg.sample(found.model, X, solver=sg.Euler(), **found.how(CALLS))
    near(got, theirs(scheduler, net, X), 1e-5)


@pytest.mark.parametrize("name", ["DPMSolverMultistep", "UniPCMultistep"])
@pytest.mark.parametrize("shift", [1.0, 5.0])
def test_flow_sigmas_are_theirs(tmp_path: Path, name: str, shift: float) -> None:
    """Of solvers that step flows: their network is told whole steps, which changes little."""
    more = {"disable_corrector": list(range(CALLS))} if name == "UniPCMultistep" else {}
    scheduler = getattr(diffusers, f"{name}Scheduler")(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift,
        solver_order=1,
        **more,
    )
    net = unet()
    found = load(saved(tmp_path, net, scheduler))
    assert isinstance(found.said.sde, sg.FlowSDE) and found.said.predicts == "velocity"
    got = sg.sample(found.model, X, solver=sg.DDIM(), **found.how(CALLS))
    near(got, theirs(scheduler, net, X), 1e-2)


@pytest.mark.parametrize("name", ["EulerDiscrete", "EDMEuler"])
def test_euler_in_sigma_is_theirs(tmp_path: Path, name: str) -> None:
    """It is DDIM; theirs begins at sigma_max z."""
    how = {"timestep_spacing": "trailing"} if name == "EulerDiscrete" else {}
    scheduler = getattr(diffusers, f"{name}Scheduler")(**how)
    net = unet()
    found = load(saved(tmp_path, net, scheduler))
    scheduler.set_timesteps(CALLS)
    end = theirs(scheduler, net, X * scheduler.init_noise_sigma)
    level = found.said.sde(float(found.how(CALLS)["walk"][0]))
    top = scheduler.sigmas[0]
    start = X * scheduler.init_noise_sigma * float(level.alpha) * float(level.rho / top)
    got = sg.sample(found.model, start, solver=sg.DDIM(), **found.how(CALLS))
    near(got, end, 2e-3)


def test_betas_are_theirs() -> None:
    for schedule in ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"):
        scheduler = diffusers.DDPMScheduler(beta_schedule=schedule)
        close(betas(scheduler.config), scheduler.betas, rtol=1e-5, atol=1e-7)
    given = [0.1, 0.2, 0.3]
    assert betas({"trained_betas": given}).tolist() == given
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True)
    close(betas(scheduler.config), scheduler.betas, rtol=1e-4, atol=1e-6)


def test_conditions_go_by_their_names(tmp_path: Path) -> None:
    """Classes as y, tokens as themselves, an image beside the state; guidance around it."""
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    found = load(saved(tmp_path / "a", unet(classes=3), scheduler))
    y = torch.tensor([0, 2])
    with torch.no_grad():
        want = unet(classes=3)(X, 499, class_labels=y).sample
    at = found.said.sde(0.5)
    close(found.model.given(y=y).output(X, at), want, atol=1e-6, rtol=1e-5)
    tokens, z = torch.randn(2, 5, 6), torch.randn(2, 4, 4, 4)
    found = load(saved(tmp_path / "b", told(), scheduler))
    assert found.shape == (4, 4, 4)
    with torch.no_grad():
        each = [told()(z, 499, encoder_hidden_states=h).sample for h in (tokens, 0 * tokens)]
    model = found.model.given(encoder_hidden_states=tokens)
    guided = CFG(model, 3.0, {"encoder_hidden_states": torch.zeros(5, 6)})
    close(guided.output(z, at), each[1] + 3 * (each[0] - each[1]), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="UNet2DConditionModel takes no class"):
        found.model.given(y=y).output(z, at)
    found = load(saved(tmp_path / "c", told(9), scheduler))
    beside = torch.randn(2, 5, 4, 4)
    assert found.shape == (4, 4, 4)
    with torch.no_grad():
        want = told(9)(torch.cat([z, beside], 1), 499, encoder_hidden_states=tokens).sample
    got = found.model.given(encoder_hidden_states=tokens, c=beside).output(z, at)
    close(got, want, atol=1e-6, rtol=1e-5)


def test_a_pipeline_with_latents(tmp_path: Path) -> None:
    """DiT: learned variance, its null class, and images of latents as theirs makes them."""
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    pipe = diffusers.DiTPipeline(transformer=dit(), vae=vae(), scheduler=scheduler)
    pipe.save_pretrained(tmp_path)
    found = load(tmp_path)
    assert found.model.heads == 2 and found.shape == (4, 4, 4) and found.null == {"y": 1000}
    pipe.set_progress_bar_config(disable=True)
    g = torch.Generator().manual_seed(5)
    want = pipe([1, 7], guidance_scale=4.0, num_inference_steps=5, generator=g, output_type="np")
    z = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(5))
    assert found.null is not None
    guided = CFG(found.model.given(y=torch.tensor([1, 7])), 4.0, found.null)
    x = found.decode(sg.sample(guided, z, solver=sg.DDIM(), **found.how(5)))
    close((x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), want.images, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "how",
    [
        {"scaling_factor": 0.2},
        {"scaling_factor": 0.3, "shift_factor": 0.1},
        {"latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 3.0, 4.0]},
    ],
    ids=str,
)
def test_latents_are_scaled_back(how: dict[str, Any]) -> None:
    """decode(encode(x)) is their decoder of their mean."""
    latents, x = Latents(vae(**how)), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        mean = latents.vae.encode(x).latent_dist.mean
        want = latents.vae.decode(mean).sample
    close(latents.decode(latents.encode(x)), want, atol=1e-5, rtol=1e-4)
    if "shift_factor" in how:
        close(latents.encode(x), (mean - 0.1) * 0.3, atol=1e-6, rtol=1e-5)


def test_an_autoencoder_that_was_saved_is_a_coder(tmp_path: Path) -> None:
    """Mode, spread, a draw and decoded images are those of their own classes."""
    theirs, x = vae(), torch.randn(3, 3, 8, 8)
    theirs.save_pretrained(tmp_path)
    codec = Codec(pretrained(tmp_path, "AutoencoderKL", CODECS, "cpu", torch.float32))
    latent = Latent(codec, torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    with torch.no_grad():
        law = theirs.encode(x).latent_dist
        mean, std = codec.posterior(x)
        close(mean, law.mode(), atol=1e-6, rtol=1e-6)
        close(std, law.std, atol=1e-6, rtol=1e-6)
        draw = law.sample(generator=torch.Generator().manual_seed(0))
        own = latent.encode(x, generator=torch.Generator().manual_seed(0))
        shift, scale = latent.like(draw)
        close(own, (draw - shift) * scale, atol=1e-5, rtol=1e-5)
        close(latent.decode(own), theirs.decode(draw).sample, atol=1e-5, rtol=1e-5)
    fitted = fit_scale(codec, ArrayData(x))
    assert torch.equal(encoded(ArrayData(x), fitted).mean, mean)


def said(scheduler: Any) -> dict[str, Any]:
    """What its file would hold."""
    return {**scheduler.config, "_class_name": type(scheduler).__name__}


def test_what_is_not_understood_is_refused_by_name(tmp_path: Path) -> None:
    with refused("The scheduler CMStochasticIterativeScheduler is not understood; those that are"):
        read({"_class_name": "CMStochasticIterativeScheduler"})
    with refused("DDIMScheduler says brand_new = 3, which is not understood"):
        read({**said(diffusers.DDIMScheduler()), "brand_new": 3})
    with refused("has use_flow_sigmas = True, which is not understood with prediction_type = 'e"):
        read(said(diffusers.UniPCMultistepScheduler(use_flow_sigmas=True)))
    with refused("says use_dynamic_shifting = True"):
        read(said(diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)))
    with refused("prediction_type 'depth': it must be one of epsilon"):
        read({"_class_name": "DDIMScheduler", "prediction_type": "depth"})
    with refused("EDMEulerScheduler with prediction_type = 'v_prediction'"):
        read(said(diffusers.EDMEulerScheduler(prediction_type="v_prediction")))
    with refused("There is no .*config.json: give a folder of diffusers"):
        load(tmp_path / "none")


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "a", unet(), diffusers.DDIMScheduler())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_class_name": "AutoencoderTiny"}))
    with refused("holds AutoencoderTiny, but only UNet2DModel, DiTTransformer2DModel"):
        load(folder)
    (folder / "config.json").write_text(json.dumps({**config, "block_out_channels": [8, 32]}))
    with refused("cannot be loaded as UNet2DModel|The weights in .* are not those of its config"):
        load(folder)
    more = {**config, "add_attention": not config.get("add_attention", True)}
    (folder / "config.json").write_text(json.dumps(more))
    with refused("The weights in .* are not those of its config.json: unexpected_keys are"):
        load(folder)
    (folder / "config.json").write_text("{")
    with refused("config.json cannot be read"):
        load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    with refused("cannot be loaded as UNet2DModel: "):
        load(folder)
    (folder / "model_index.json").write_text(json.dumps({"vae": ["diffusers", "AutoencoderKL"]}))
    with refused("names vae: a pipeline with a unet or a transformer"):
        load(folder)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    folder = saved(tmp_path, unet(), diffusers.DDIMScheduler())
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(unet().state_dict(), folder / "diffusion_pytorch_model.bin")
    with refused("cannot be loaded as UNet2DModel"):
        load(folder)


def test_images_are_their_own_latents(tmp_path: Path) -> None:
    found = load(saved(tmp_path, unet(), diffusers.DDPMScheduler()))
    assert isinstance(found, Loaded) and found.shape == (1, 8, 8)
    assert found.decode(X) is X is found.encode(X)
    assert isinstance(found.thresholded(found.model), Thresholded)  # theirs clips by default
