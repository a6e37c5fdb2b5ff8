"""Configurations drawn from the product of what they may say: sampled as theirs, or refused."""

from __future__ import annotations

import random
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.interop.schedules import defaults, read

# diffusers hands tensors to numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")

SAID: dict[str, list[Any]] = {
    "num_train_timesteps": [1000, 500, 37],
    "beta_start": [1e-4, 8.5e-4],
    "beta_end": [0.02, 0.012],
    "beta_schedule": ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"],
    "trained_betas": [None, None, [0.001 * (i + 1) for i in range(40)]],
    "prediction_type": ["epsilon", "v_prediction", "sample"],
    "rescale_betas_zero_snr": [False, True],
    "clip_sample": [True, False],
    "clip_sample_range": [1.0, 0.4],
    "thresholding": [False, True],
    "sample_max_value": [1.0, 2.0],
    "timestep_spacing": ["leading", "linspace", "trailing"],
    "steps_offset": [0, 1],
    "set_alpha_to_one": [True, False],
    "final_sigmas_type": ["zero", "sigma_min"],
    "use_karras_sigmas": [False, True],
    "use_exponential_sigmas": [False, True],
    "interpolation_type": ["linear", "log_linear"],
    "algorithm_type": ["dpmsolver++", "dpmsolver"],
    "lower_order_final": [True, False],
    "euler_at_final": [True, False],
}
HOW: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "DDIMScheduler": ({}, {"use_clipped_model_output": True}),
    "EulerDiscreteScheduler": ({}, {}),
    "DPMSolverMultistepScheduler": ({"solver_order": 1}, {}),
    "DEISMultistepScheduler": ({"solver_order": 1}, {}),
}
"""Those whose step is DDIM's, with what makes it so in a configuration and in a call."""
X = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def net(x: Tensor, t: Any) -> Tensor:
    """Something that depends on both, and is not linear."""
    t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, 1, 1, 1)
    return 0.7 * x * torch.cos(t / 300) + 0.5 * torch.tanh(x.roll(1, -1) + t / 1000)


def theirs(name: str, config: dict[str, Any], n: int) -> Tensor:
    """diffusers' own loop, from X of unit variance."""
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(n)
    x = X * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        told = scheduler.scale_model_input(x, t)
        x = scheduler.step(net(told, t), t, x, **HOW[name][1]).prev_sample
    return x


@pytest.mark.parametrize("name", HOW)
def test_what_is_drawn_is_theirs_or_refused(name: str) -> None:
    """DDIMScheduler's linspace, and steps whose number does not divide that of the betas, are left
    out: there it steps by another distance than it visits; so is what theirs cannot step."""
    rng, equal = random.Random(0), 0
    for _ in range(40):
        config = {key: rng.choice(SAID[key]) for key in defaults(name) if key in SAID}
        config = {key: v for key, v in config.items() if rng.random() < 0.5} | HOW[name][0]
        n = rng.choice([2, 5, 10])
        betas = len(config.get("trained_betas") or ()) or config.get("num_train_timesteps", 1000)
        if name == "DDIMScheduler" and (config.get("timestep_spacing") == "linspace" or betas % n):
            continue
        try:
            said = read({**config, "_class_name": name})
            walk = said.times(n)
        except ValueError:
            continue
        if len(walk) < 2:
            continue
        model = sg.ScoreModel(net, said.sde, said.predicts, time=said.label)
        start = X
        if name == "EulerDiscreteScheduler":  # which begins at sigma z, or at sqrt(1 + sigma^2) z
            made = said.made(n)
            start = X * made.init_noise_sigma / (1 + float(made.sigmas[0]) ** 2) ** 0.5
        try:
            got = sg.sample(
                said.thresholded(model),
                start,
                solver=sg.DDIM(),
                walk=walk,
                denoise=said.denoises,
            )
        except ValueError:  # eps where there is no signal
            continue
        try:
            want = theirs(name, config, n)
        except IndexError:  # two of its first times are one after rounding
            continue
        # Times between steps are told rounded, by theirs.
        torch.testing.assert_close(got, want, rtol=0, atol=5e-3 * float(want.abs().max()))
        equal += 1
    assert equal >= 8
