"""What a diffusers scheduler's configuration says of a model: its process, its output, its times.

Who steps is not said here: the solver is the caller's. Every key is known or refused by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import one_of
from sdegen.guidance.threshold import Thresholded
from sdegen.model.labels import Label, Steps, label_c_noise
from sdegen.sde.process import LinearSDE
from sdegen.sde.schedules import EDMSDE, DiscreteVPSDE, FlowSDE

Config = Mapping[str, Any]

PREDICTS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "velocity"}

BETAS = {
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
}
CLIPS = {
    "clip_sample",
    "clip_sample_range",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
}
GRIDS = {
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "final_sigmas_type",
    "lambda_min_clipped",
    "sigma_min",
    "sigma_max",
}
SPACED = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
"""What says that times are spaced by sigma."""
STEPS = {
    "solver_order",
    "solver_type",
    "algorithm_type",
    "lower_order_final",
    "euler_at_final",
    "predict_x0",
    "disable_corrector",
    "solver_p",
    "skip_prk_steps",
    "variance_type",
    "interpolation_type",
    "timestep_type",
    "stochastic_sampling",
}
"""Of how a solver steps, which the caller says."""
FLOW = {
    "num_train_timesteps",
    "shift",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
    "time_shift_type",
    "shift_terminal",
}
EDM = {"sigma_min", "sigma_max", "sigma_data", "sigma_schedule", "num_train_timesteps", "rho"}

KNOWN: dict[str, set[str]] = {
    "DDPMScheduler": BETAS | CLIPS | STEPS,
    "DDIMScheduler": BETAS | CLIPS | {"set_alpha_to_one"},
    "PNDMScheduler": BETAS | STEPS | {"set_alpha_to_one"},
    "DPMSolverMultistepScheduler": BETAS | CLIPS | GRIDS | STEPS,
    "DPMSolverSinglestepScheduler": BETAS | CLIPS | GRIDS | STEPS,
    "UniPCMultistepScheduler": BETAS | CLIPS | GRIDS | STEPS,
    "DEISMultistepScheduler": BETAS | CLIPS | GRIDS | STEPS,
    "EulerDiscreteScheduler": BETAS | GRIDS | STEPS,
    "EulerAncestralDiscreteScheduler": BETAS,
    "HeunDiscreteScheduler": BETAS | CLIPS | GRIDS,
    "LMSDiscreteScheduler": BETAS | GRIDS,
    "FlowMatchEulerDiscreteScheduler": FLOW | GRIDS | STEPS,
    "EDMEulerScheduler": EDM | {"prediction_type", "final_sigmas_type"},
    "EDMDPMSolverMultistepScheduler": EDM | {"prediction_type", "final_sigmas_type"} | STEPS,
}
"""Schedulers, and the keys of each that are understood."""

OFF: dict[str, tuple[Any, ...]] = {
    "use_flow_sigmas": (False,),
    "flow_shift": (1.0,),
    "use_dynamic_shifting": (False,),
    "time_shift_type": ("exponential",),
    "invert_sigmas": (False,),
    "shift_terminal": (None,),
    "solver_p": (None,),
    "timestep_type": ("discrete",),
    "lambda_min_clipped": (-math.inf,),
}
"""Keys that are understood only where they say nothing."""


@dataclass(frozen=True)
class Said:
    """A scheduler's configuration in our words.

    sde, predicts, label: what ``ScoreModel`` takes; sigma_data of EDM's preconditioning.
    config:  as it was.
    """

    sde: LinearSDE
    predicts: str
    label: Label
    config: dict[str, Any]
    sigma_data: float = 0.5

    @property
    def name(self) -> str:
        """The scheduler's class."""
        return str(self.config["_class_name"])

    @property
    def n(self) -> int:
        """The steps that the network counts."""
        if isinstance(self.sde, DiscreteVPSDE):
            return self.sde.n
        return int(self.config.get("num_train_timesteps", 1000))

    @property
    def denoises(self) -> bool:
        """Whether the last call is the step to sigma = 0."""
        return bool(
            self.config.get("set_alpha_to_one", True)
            and self.config.get("final_sigmas_type", "zero") == "zero"
        )

    def thresholded(self, model: Any) -> Any:
        """A model, its x0 clipped as the configuration says; itself where it says nothing."""
        c, new_ones = self.config, self.name in ("DDPMScheduler", "DDIMScheduler")
        if c.get("thresholding", False):
            most = float(c.get("sample_max_value", 1.0))
            if most <= 1:  # then theirs is a clip
                return Thresholded(model, None, (-1.0, 1.0))
            return Thresholded(
                model, float(c.get("dynamic_thresholding_ratio", 0.995)), (-1.0, 1.0), most
            )
        if c.get("clip_sample", new_ones):
            r = float(c.get("clip_sample_range", 1.0))
            return Thresholded(model, None, (-r, r))
        return model

    def times(self, calls: int) -> Tensor:
        """The times at which their scheduler asks the network in so many calls, falling, and,
        where it does not end at sigma = 0, the first step's.

        ValueError where the times do not fall, as of a solver that asks twice.
        """
        import diffusers

        made = getattr(diffusers, self.name).from_config(self.config)
        made.set_timesteps(calls)
        asked, sde = made.timesteps.double(), self.sde
        if isinstance(sde, DiscreteVPSDE):
            whole = bool((asked == asked.round()).all())
            t = (asked + 1) / sde.n
            if not whole or any(self.config.get(name) for name in SPACED):
                # Between steps the level counts; labels, which may be rounded, follow it.
                t = sde.time(-made.sigmas[: len(asked)].double().log())
        else:
            t = made.sigmas[: len(asked)].double()
        if not self.denoises:
            t = torch.cat([t, t.new_tensor([sde.t_min])])
        t = t.unique_consecutive()
        if not bool((t.diff() < 0).all()):
            raise ValueError(
                f"The times of {self.name} for {calls} calls do not fall from step to step: take "
                "a walk of sdegen's, as walk='trailing'."
            )
        return t


def read(config: Config) -> Said:
    """A scheduler's configuration, as its scheduler_config.json has it.

    ValueError for another scheduler, and for a key that says what we do not reproduce.
    """
    name = str(config.get("_class_name"))
    if name not in KNOWN:
        raise ValueError(
            f"The scheduler {name} is not understood; those that are: {', '.join(KNOWN)}."
        )
    check(config, KNOWN[name], name)
    whole = dict(config)
    if name.startswith("FlowMatch"):
        n = int(config.get("num_train_timesteps", 1000))
        return Said(FlowSDE(T=1.0, t_min=1 / n), "velocity", Steps(n), whole)
    if name.startswith("EDM"):
        kind = config.get("prediction_type", "epsilon")
        if kind != "epsilon":
            raise ValueError(
                f"{name} with prediction_type = {kind!r} preconditions otherwise than EDM: only "
                "'epsilon' is understood."
            )
        low, high = (float(config.get(k, v)) for k, v in (("sigma_min", 0.002), ("sigma_max", 80)))
        data = float(config.get("sigma_data", 0.5))
        return Said(EDMSDE(t_min=low, T=high), "edm", label_c_noise, whole, data)
    predicts = one_of(config.get("prediction_type", "epsilon"), "prediction_type", PREDICTS)
    if predicts == "velocity":
        raise ValueError(
            f"{name} with prediction_type = 'flow_prediction' is not understood: load the model "
            "with the configuration of FlowMatchEulerDiscreteScheduler."
        )
    sde = DiscreteVPSDE(tuple(betas(config).tolist()))
    return Said(sde, predicts, Steps(sde.n, -1.0), whole)


def check(config: Config, known: set[str], name: str) -> None:
    """ValueError for a key that says what is not understood."""
    for key, value in config.items():
        if key.startswith("_") or (key in known and key not in OFF):
            continue
        if key in OFF and (value in OFF[key] or str(value) in map(str, OFF[key])):
            continue
        raise ValueError(
            f"The configuration of {name} says {key} = {value!r}, which is not understood: remove "
            "it, if the model does not depend on it, or build the ScoreModel yourself."
        )


def betas(config: Config) -> Tensor:
    """DDPM's betas of a configuration, (n,) in float64."""
    if (given := config.get("trained_betas")) is not None:
        found = torch.as_tensor(given, dtype=torch.float64)
    else:
        n = int(config.get("num_train_timesteps", 1000))
        ends = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
        kind = one_of(config.get("beta_schedule", "linear"), "beta_schedule", SCHEDULES)
        found = kind(*ends, n)
    return without_signal(found) if config.get("rescale_betas_zero_snr", False) else found


def linear(start: float, end: float, n: int) -> Tensor:
    """Ho et al. (2020), sec. 4."""
    return torch.linspace(start, end, n, dtype=torch.float64)


def scaled_linear(start: float, end: float, n: int) -> Tensor:
    """Rombach et al. (2022), Stable Diffusion: square roots at equal distances."""
    return linear(math.sqrt(start), math.sqrt(end), n) ** 2


def squaredcos(start: float, end: float, n: int) -> Tensor:
    """Nichol & Dhariwal (2021), eq. 17, at most 0.999."""
    t = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - bar[1:] / bar[:-1]).clamp(max=0.999)


def sigmoid(start: float, end: float, n: int) -> Tensor:
    """GeoDiff's: a sigmoid of -6 to 6 between the ends.  Xu et al. (2022)."""
    return torch.linspace(-6, 6, n, dtype=torch.float64).sigmoid() * (end - start) + start


SCHEDULES: dict[str, Callable[[float, float, int], Tensor]] = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "squaredcos_cap_v2": squaredcos,
    "sigmoid": sigmoid,
}


def without_signal(betas: Tensor) -> Tensor:
    """Betas whose last one is 1: sqrt of the products, shifted to end at 0 and scaled to begin
    where they did.  Lin et al. (2024), alg. 1."""
    root = (1 - betas).log().cumsum(0).div(2).exp()
    first, last = root[0], root[-1]
    bar = ((root - last) * first / (first - last)) ** 2
    return 1 - torch.cat([bar[:1], bar[1:] / bar[:-1]])
