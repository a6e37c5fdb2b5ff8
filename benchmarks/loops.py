"""One sampler, as each library has it: loops of n steps on a network that costs nothing.

Each maker returns state -> state. A library that is not installed is left out by ``loops``, which
says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.bench.peers import k_sampling

Loop = Callable[[Tensor], Tensor]
SDE = sg.VPSDE()
METHODS = ("DDIM", "DPM-Solver++(2M)", "Heun", "ancestral")
OURS: dict[str, tuple[sg.Solver, str]] = {
    "DDIM": (sg.DDIM(), "eps"),
    "DPM-Solver++(2M)": (sg.DPMSolverPP(2), "eps"),
    "Heun": (sg.Heun(), "velocity"),
    "ancestral": (sg.Ancestral(), "eps"),
}


def sdegen(method: str, n: int, output: Tensor) -> Loop:
    """Ours: ``sample`` as anyone calls it, noise from torch's own generator as the others'."""
    solver, predicts = OURS[method]
    model = sg.ScoreModel(lambda x, t: output, SDE, predicts)
    return lambda x: sg.sample(model, x, solver=solver, steps=n)


def by_hand(method: str, n: int, output: Tensor) -> Loop:
    """The tightest loop there is: coefficients as floats beforehand, everything in place."""
    levels = SDE(sg.walks.log_snr(SDE, n))
    t, a, s = levels.t.tolist(), levels.alpha.tolist(), levels.sigma.tolist()
    lam = levels.lam.tolist()

    def ddim(x: Tensor) -> Tensor:
        x = x.clone()
        for i in range(n):
            c = a[i + 1] / a[i]
            x.mul_(c).add_(output, alpha=s[i + 1] - c * s[i])
        return x

    def two_m(x: Tensor) -> Tensor:
        x = x.clone()
        new, old = torch.empty_like(x), torch.empty_like(x)
        for i in range(n):
            gain = a[i + 1] - s[i + 1] / s[i] * a[i]
            r = (lam[i + 1] - lam[i]) / (lam[i] - lam[i - 1]) / 2 if i else 0.0
            torch.add(x, output, alpha=-s[i], out=new)  # alpha x0
            x.mul_(s[i + 1] / s[i]).add_(new, alpha=gain * (1 + r) / a[i])
            if i:
                x.add_(old, alpha=-gain * r / a[i - 1])
            new, old = old, new
        return x

    def heun(x: Tensor) -> Tensor:
        x = x.clone()
        other = torch.empty_like(x)
        for i in range(n):
            h = t[i + 1] - t[i]
            torch.add(x, output, alpha=h, out=other)  # where the second call would be
            x.add_(output, alpha=h / 2).add_(output, alpha=h / 2)
        return x

    def ancestral(x: Tensor) -> Tensor:
        x = x.clone()
        z = torch.empty_like(x)
        for i in range(n):
            c = a[i + 1] / a[i]
            keep = s[i + 1] / (c * s[i])
            std = s[i + 1] * max(0.0, 1 - keep**2) ** 0.5
            x.mul_(c).add_(output, alpha=s[i + 1] * keep - c * s[i])
            x.add_(z.normal_(), alpha=std)
        return x

    return {"DDIM": ddim, "DPM-Solver++(2M)": two_m, "Heun": heun, "ancestral": ancestral}[method]


def diffusers(method: str, n: int, output: Tensor) -> Loop:
    """Its schedulers, each step as its pipelines call it."""
    names = {
        "DDIM": "DDIM",
        "DPM-Solver++(2M)": "DPMSolverMultistep",
        "Heun": "HeunDiscrete",
        "ancestral": "DDPM",
    }
    import diffusers

    made = getattr(diffusers, f"{names[method]}Scheduler")()

    def loop(x: Tensor) -> Tensor:
        made.set_timesteps(n, device=x.device)
        for t in made.timesteps:
            made.scale_model_input(x, t)
            x = made.step(output, t, x).prev_sample
        return x

    return loop


def k_diffusion(method: str, n: int, output: Tensor) -> Loop:
    """Its functions; on them DDIM is Euler in sigma."""
    k = k_sampling()
    names = {
        "DDIM": k.sample_euler,
        "DPM-Solver++(2M)": k.sample_dpmpp_2m,
        "Heun": k.sample_heun,
        "ancestral": k.sample_euler_ancestral,
    }
    sigmas = k.get_sigmas_karras(n, 0.02, 80.0, device=output.device)
    run = names[method]
    return lambda x: run(lambda x, sigma: output, x, sigmas, disable=True)


def azula(method: str, n: int, output: Tensor) -> Loop:
    """Its samplers, on its own VP schedule."""
    import azula.denoise
    import azula.noise
    import azula.sample

    names = {
        "DDIM": azula.sample.DDIMSampler,
        "DPM-Solver++(2M)": azula.sample.xEABSampler,
        "Heun": azula.sample.HeunSampler,
        "ancestral": azula.sample.DDPMSampler,
    }

    class Free(azula.denoise.Denoiser):  # type: ignore[misc]
        schedule = azula.noise.VPSchedule()

        def forward(self, x: Tensor, t: Tensor) -> Any:
            return azula.denoise.DiracPosterior(mean=output)

    made = names[method](Free(), steps=n, silent=True)
    return lambda x: made(x)


def torchdiffeq(method: str, n: int, output: Tensor) -> Loop:
    """Its fixed-grid Euler and Heun on the probability flow."""
    names = {"DDIM": "euler", "Heun": "heun2"}
    from torchdiffeq import odeint

    times = torch.linspace(1.0, 1e-3, n + 1, device=output.device)
    return lambda x: odeint(lambda t, x: output, x, times, method=names[method])[-1]


def torchsde(method: str, n: int, output: Tensor) -> Loop:
    """Its Euler, with its own Brownian motion, on states (b, d)."""
    from torchsde import sdeint

    class Free(torch.nn.Module):
        noise_type, sde_type = "diagonal", "ito"

        def f(self, t: Tensor, y: Tensor) -> Tensor:
            return output.reshape(len(y), -1)

        g = f

    times = torch.linspace(0.0, 1.0, 2, device=output.device)
    free = Free()
    return lambda x: sdeint(free, x.reshape(len(x), -1), times, method="euler", dt=1 / n)[-1]


MAKERS = {
    "by hand": by_hand,
    "sdegen": sdegen,
    "diffusers": diffusers,
    "k-diffusion": k_diffusion,
    "azula": azula,
    "torchdiffeq": torchdiffeq,
    "torchsde": torchsde,
}


ONLY = {"torchdiffeq": ("DDIM", "Heun"), "torchsde": ("ancestral",)}
"""The methods of libraries that do not have all."""


def loops(method: str, n: int, output: Tensor) -> tuple[dict[str, Loop], list[str]]:
    """Every library's loop of a method on states of output's shape, and the libraries missing."""
    found, missing = dict[str, Loop](), list[str]()
    for name, make in MAKERS.items():
        if method not in ONLY.get(name, METHODS):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[name] = make(method, n, output)
        except ImportError:
            missing.append(name)
    return found, missing
