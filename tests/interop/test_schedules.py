"""Schedulers' configurations are read as diffusers' own classes read them."""

from __future__ import annotations

import math
from typing import Any

import diffusers
import pytest
import torch

import sdegen as sg
from sdegen.guidance import Thresholded
from sdegen.interop.scheduler import SdegenScheduler
from sdegen.interop.schedules import KNOWN, betas, defaults, read
from tests.cases import close, refused

# diffusers hands tensors to numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

LATENT = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
HUB: dict[str, dict[str, Any]] = {
    "Stable Diffusion 1.5": {
        "_class_name": "PNDMScheduler",
        "_diffusers_version": "0.6.0",
        **LATENT,
    },
    "Stable Diffusion 2.1": {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.8.0",
        "prediction_type": "v_prediction",
        **LATENT,
    },
    "Stable Diffusion XL": {
        "_class_name": "EulerDiscreteScheduler",
        "_diffusers_version": "0.19.0.dev0",
        "interpolation_type": "linear",
        "prediction_type": "epsilon",
        "sample_max_value": 1.0,
        "timestep_spacing": "leading",
        "use_karras_sigmas": False,
        **LATENT,
    },
    "DDPM of CIFAR-10": {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": "0.1.1",
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "clip_sample": True,
        "num_train_timesteps": 1000,
        "trained_betas": None,
        "variance_type": "fixed_large",
    },
}
"""As they lie on the hub, with keys of other schedulers than their own."""

MODEL = sg.ScoreModel(lambda x, t: x, sg.DiscreteVPSDE(), "eps", time="1000t-1")


@pytest.mark.parametrize("name", HUB)
def test_configurations_of_the_hub_are_read(name: str) -> None:
    """Betas, output, clip, end and times, against the scheduler that they make."""
    config = HUB[name]
    theirs = getattr(diffusers, config["_class_name"]).from_config(config)
    found, made = read(config), SdegenScheduler.from_config(config)
    for said in (found, made.said):
        assert isinstance(said.sde, sg.DiscreteVPSDE)
        close(torch.as_tensor(said.sde.betas), theirs.betas, rtol=1e-5)
        assert said.predicts == ("v" if "2.1" in name else "eps")
        clips = said.thresholded(MODEL) is not MODEL
        assert clips == ("CIFAR" in name)
    assert found.denoises == (name in ("Stable Diffusion XL", "DDPM of CIFAR-10"))
    theirs.set_timesteps(10)
    want = (theirs.timesteps.double().unique_consecutive() + 1) / 1000
    got = found.times(10)
    close(got[: len(want)], want, rtol=1e-6)


def test_a_key_of_another_class_says_nothing() -> None:
    """Neither a clip nor an end is taken from keys that the class's own signature has not."""
    euler = {"_class_name": "EulerDiscreteScheduler", "set_alpha_to_one": False}
    assert read(euler).denoises
    for name in ("EulerDiscreteScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"):
        config = {"_class_name": name, "clip_sample": True}
        assert read(config).thresholded(MODEL) is MODEL
        assert SdegenScheduler.from_config(config).said.thresholded(MODEL) is MODEL
    assert read({"_class_name": "DDIMScheduler", "use_flow_sigmas": True}).predicts == "eps"
    with refused("DDIMScheduler says brand_new = 3, which is not understood"):
        read({"_class_name": "DDIMScheduler", "brand_new": 3})
    edm = {"_class_name": "EDMDPMSolverMultistepScheduler", "thresholding": True}
    assert isinstance(read({**edm, "sample_max_value": 3.0}).thresholded(MODEL), Thresholded)


@pytest.mark.parametrize("name", KNOWN)
def test_every_scheduler_reads_its_own_defaults(name: str) -> None:
    """An empty configuration is the class's own, in betas, in clips, and in where it ends."""
    kind, bare = getattr(diffusers, name), {"_class_name": name}
    theirs, found = kind(), read(bare)
    assert {key: found.config[key] for key in defaults(name)} == {
        key: theirs.config[key] for key in defaults(name)
    }
    if isinstance(found.sde, sg.DiscreteVPSDE):
        close(betas(found.config), theirs.betas, rtol=1e-5)
        made = SdegenScheduler.from_config(bare)
        assert made.said.sde == found.sde
        assert made.config.clip_sample == theirs.config.get("clip_sample", False)
    if name != "PNDMScheduler":
        theirs.set_timesteps(8)
    for end in ("zero", "sigma_min") if "final_sigmas_type" in defaults(name) else (None,):
        if end is not None:
            theirs = kind(final_sigmas_type=end, **final(name))
            theirs.set_timesteps(8)
        said = read({**theirs.config, **bare})
        if hasattr(theirs, "sigmas"):
            assert said.denoises == (float(theirs.sigmas[-1]) == 0), end
    if name == "PNDMScheduler":
        assert not found.denoises  # its set_alpha_to_one is False where DDIM's is True


def final(name: str) -> dict[str, Any]:
    return {"lower_order_final": True} if "Singlestep" in name else {}


def test_steps_are_told_once_and_only_walks_are() -> None:
    """Heun's and PNDM's second questions are no steps; what is no walk is refused."""
    heun = diffusers.HeunDiscreteScheduler()
    heun.set_timesteps(6)
    found = read({**heun.config, "_class_name": "HeunDiscreteScheduler"})
    assert len(heun.timesteps) == 11 and len(found.times(6)) == 6
    pndm = {"_class_name": "PNDMScheduler", "skip_prk_steps": True}
    assert len(read(pndm).times(6)) == 6
    with refused("PNDMScheduler with skip_prk_steps = False begins with Runge-Kutta steps"):
        read({"_class_name": "PNDMScheduler"}).times(6)
    euler = {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}
    for beyond in ({"sigma_max": 200.0}, {"sigma_min": 0.001}):
        with refused(r"6 steps of EulerDiscreteScheduler .* within \[t_min, T\] = \[0.001, 1\]"):
            read({**euler, **beyond}).times(6)
    whole = read(euler).times(6)
    assert math.isclose(float(whole[0]), 1.0, rel_tol=1e-5)


SMALL_FIRST = {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 1000}
"""Whose first beta is 4e-5: sigma there is known to some 1e-3 in their float32."""


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *(("EDMEuler", {"sigma_min": low, "sigma_max": 20.0}) for low in (0.01, 0.002)),
        ("EDMEuler", {"sigma_schedule": "exponential", "sigma_min": 0.01}),
        ("EDMDPMSolverMultistep", {"rho": 5.0}),
        ("EulerDiscrete", {"use_exponential_sigmas": True, "timestep_spacing": "linspace"}),
        ("EulerDiscrete", {"use_karras_sigmas": True, **SMALL_FIRST}),
        ("UniPCMultistep", {"use_beta_sigmas": True, **SMALL_FIRST}),
        ("DPMSolverMultistep", {"use_lu_lambdas": True, **SMALL_FIRST}),
    ],
)
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
def test_steps_that_end_at_the_first_beta_end_there_once(
    name: str, how: dict[str, Any], end: str
) -> None:
    """Spaced by sigma they come there to rounding, and a last step from there to there is none."""
    config = {"_class_name": f"{name}Scheduler", "final_sigmas_type": end, **how}
    found = read(config)
    for steps in (2, 5, 20):
        times, theirs = found.times(steps), found.made(steps).sigmas.double()
        assert len(times) == steps and float(times[-1]) == found.sde.t_min
        close(found.sde(times).rho, theirs[:steps], rtol=3e-3)


def test_a_kind_or_a_way_that_is_none_is_refused_by_its_name() -> None:
    """Sigmas between those of the betas while the network is told other times; what diffusers'
    own class refuses; and values that are no numbers, no counts, no yes or no."""
    euler = {"_class_name": "EulerDiscreteScheduler"}
    assert read({**euler, "interpolation_type": "linear"}).denoises
    with refused("says interpolation_type = 'log_linear', which is not understood"):
        read({**euler, "interpolation_type": "log_linear"})
    ddim = {"_class_name": "DDIMScheduler"}
    for schedule in ("sigmoid", "linear"):
        found = read({**ddim, "beta_schedule": schedule, "timestep_spacing": "trailing"})
        if schedule == "linear":
            assert len(found.times(4)) == 4
            with refused("steps must be a whole number >= 1, but it is 0"):
                found.times(0)
            continue
        with refused("diffusers' own DDIMScheduler does not take this .* for 4 steps: sigmoid"):
            found.times(4)
    for key, value, said in (
        ("num_train_timesteps", -3, "num_train_timesteps must be a whole number >= 1, but it is"),
        ("beta_start", "x", "beta_start must be a number, but it is 'x'"),
        ("clip_sample", "no", "clip_sample must be true or false, but it is 'no'"),
        ("thresholding", 1, "thresholding must be true or false, but it is 1"),
        ("trained_betas", "abc", "trained_betas must be a list of numbers, but it is 'abc'"),
        ("trained_betas", [None, 1], r"must be a list of numbers, but it is \[None, 1\]"),
        ("trained_betas", {"a": 1}, "trained_betas must be a list of numbers, but it is {'a'"),
        ("trained_betas", [[0.1]], "trained_betas must be a list of numbers, but it is"),
        ("clip_sample_range", math.nan, "clip_sample_range must be a number, but it is nan"),
    ):
        with refused(said):
            read({**ddim, key: value})


STRANGE = {
    "LCMScheduler": ("original_inference_steps", "timestep_scaling"),
    "TCDScheduler": ("original_inference_steps", "timestep_scaling"),
    "DPMSolverSDEScheduler": ("noise_sampler_seed",),
    "SASolverScheduler": ("predictor_order", "corrector_order", "tau_func"),
}
"""What classes say that is not understood, and goes when it is removed."""


def test_what_another_class_does_not_say_is_as_that_class_has_it() -> None:
    """Of every scheduler of diffusers that has betas: a bare configuration is its default one, and
    only what it says of the model is taken."""
    tried = 0
    for name in dir(diffusers):
        kind = getattr(diffusers, name)
        if not name.endswith("Scheduler") or "beta_schedule" not in defaults(kind):
            continue
        theirs, bare = kind(), {"_class_name": name}
        config = dict(theirs.config) | bare
        if "snr_shift_scale" in config:  # the class has it, whether the configuration says it
            for each in (config, bare):
                with pytest.raises(ValueError, match="the class has snr_shift_scale") as error:
                    SdegenScheduler.from_config(each)
                assert "remove it" not in str(error.value)
            continue
        for key in STRANGE.get(name, ()):
            with refused(f"says {key} = .*, which is not understood: remove it"):
                SdegenScheduler.from_config(config)
            del config[key]
        whole, made = SdegenScheduler.from_config(config), SdegenScheduler.from_config(bare)
        assert made.said.sde == whole.said.sde, name
        if hasattr(theirs, "betas"):
            close(betas(made.config), theirs.betas, rtol=1e-5)
        assert made.config.eta is None and made.config.clip_sample == whole.config.clip_sample
        tried += 1
    assert tried >= 15 + len(STRANGE)


def test_a_configuration_of_ours_is_read_back() -> None:
    """The model's part of it; its steps are its solver's, and are refused."""
    how = {"prediction_type": "v_prediction", "beta_end": 0.012, "solver": "unipc"}
    ours = SdegenScheduler(thresholding=True, **how)
    found = read({**ours.config, "_class_name": "SdegenScheduler"})
    assert found.sde == ours.said.sde and found.predicts == "v"
    assert isinstance(found.thresholded(MODEL), Thresholded)
    assert read({"_class_name": "SdegenScheduler"}).thresholded(MODEL) is MODEL
    with refused(r"SdegenScheduler takes the steps of its solver: leave how\(\) out"):
        found.times(5)
    with refused("says brand_new = 3, which is not understood"):
        read({"_class_name": "SdegenScheduler", "brand_new": 3})


def test_a_step_after_the_last_is_refused() -> None:
    ours, x = SdegenScheduler(walk="trailing"), torch.randn(1, 1, 4, 4)
    ours.set_timesteps(2)
    for t in ours.timesteps:
        x = ours.step(x, t, x).prev_sample
    with refused("All 2 timesteps are done"):
        ours.step(x, ours.timesteps[-1], x)
