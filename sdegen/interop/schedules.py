"""What a diffusers scheduler's configuration says of a model: its process, its output, its times.

Who steps is not said here: the solver is the caller's. A key that no scheduler takes is refused by
its name; one that this scheduler does not take is ignored, as diffusers ignores it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from reprlib import repr as short
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import flag, number, one_of, whole
from sdegen.guidance.threshold import Thresholded
from sdegen.model.labels import Label, Steps, label_c_noise
from sdegen.sde.process import LinearSDE
from sdegen.sde.schedules import EDMSDE, DiscreteVPSDE, FlowSDE

Config = Mapping[str, Any]

PREDICTS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0", "flow_prediction": "velocity"}

KNOWN = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
)
"""Schedulers that are understood."""

OURS = "SdegenScheduler"
"""Ours, of which a configuration says the model, but no steps."""
STEPPED = ("solver", "walk", "eta", "guidance_scale", "denoise")
"""What it says beside the model."""

SPACED = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
"""What says that times are spaced by sigma."""

UNDERSTOOD = {
    # The process, and the network's output.
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
    *("rescale_betas_zero_snr", "prediction_type", "variance_type"),
    *("sigma_min", "sigma_max", "sigma_data"),
    # What is done to x0.
    *("clip_sample", "clip_sample_range", "thresholding"),
    *("dynamic_thresholding_ratio", "sample_max_value"),
    # The times, which their scheduler is asked for.
    *("timestep_spacing", "steps_offset", "set_alpha_to_one", "final_sigmas_type", *SPACED),
    *("sigma_schedule", "rho", "shift", "base_shift", "max_shift", "base_image_seq_len"),
    *("max_image_seq_len", "skip_prk_steps", "use_flow_sigmas", "flow_shift"),
    # How a solver steps, which the caller says.
    *("solver_order", "solver_type", "algorithm_type", "lower_order_final", "euler_at_final"),
    *("predict_x0", "disable_corrector", "stochastic_sampling"),
}
"""Keys that may say anything: any other is understood where it says its class's default."""


def library() -> Any:
    """diffusers; ValueError where it is not installed."""
    try:
        import diffusers
    except ImportError as error:
        raise ValueError("diffusers is not installed: pip install 'sdegen[hf]'.") from error
    return diffusers


def defaults(scheduler: str | type) -> dict[str, Any]:
    """The keys that a scheduler's class takes, each as it is where a configuration has it not."""
    kind = getattr(library(), scheduler) if isinstance(scheduler, str) else scheduler
    known = inspect.signature(kind).parameters.values()
    return {each.name: each.default for each in known if each.default is not each.empty}


def known_keys(config: Config, names: Sequence[str], more: Collection[str] = ()) -> set[str]:
    """The keys of a configuration that one of these classes takes.

    Those of others alone are ignored, as their classes ignore them: a configuration that was made
    for one scheduler and saved by another keeps all it was given. ``more``: keys beside theirs.
    ValueError for a key that no scheduler takes, and for one that says what is not understood.
    """
    found, every = set(), set(more).union(UNDERSTOOD, *map(defaults, KNOWN))
    takes = [defaults(name) for name in names]
    for key, value in config.items():
        usual = [keys[key] for keys in takes if key in keys]
        if key.startswith("_") or (key in every and not usual and key not in more):
            continue
        if key not in {*UNDERSTOOD, *more} and not (
            value in usual or str(value) in map(str, usual)
        ):
            name = names[0] if len(names) == 1 else "the scheduler"
            raise ValueError(
                f"The configuration of {name} says {key} = {value!r}, which is not understood: "
                "remove it, if the model does not depend on it, or build the ScoreModel yourself."
            )
        found.add(key)
    return found


@dataclass(frozen=True)
class Said:
    """A scheduler's configuration in our words.

    sde, predicts, label: what ``ScoreModel`` takes; sigma_data of EDM's preconditioning.
    config:  every key that its class takes.
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
        return int(self.config["num_train_timesteps"])

    @property
    def denoises(self) -> bool:
        """Whether the last step is the one to sigma = 0."""
        c = self.config
        return bool(
            c.get("set_alpha_to_one", True)
            and c.get("final_sigmas_type", "zero") == "zero"
            and self.name != "DEISMultistepScheduler"  # whose last sigma is that of its first beta
        )

    def thresholded(self, model: Any) -> Any:
        """A model, its x0 clipped as the configuration says; itself where it says nothing."""
        c = self.config
        if c.get("thresholding", False):
            most = float(c["sample_max_value"])
            if most <= 1:  # then theirs is a clip
                return Thresholded(model, None, (-1.0, 1.0))
            return Thresholded(model, float(c["dynamic_thresholding_ratio"]), (-1.0, 1.0), most)
        if c.get("clip_sample", False):
            r = float(c["clip_sample_range"])
            return Thresholded(model, None, (-r, r))
        return model

    def times(self, steps: int) -> Tensor:
        """The times at which the steps of their scheduler begin, falling, and, where it does not
        end at sigma = 0, the last one's end.

        A scheduler that asks the network more often than once a step, as Heun's, asks at some of
        them twice: they are told once. ValueError for steps that no walk is, which do not fall, as
        PNDM's first ones, or leave [t_min, T], and for those that the scheduler itself refuses.
        """
        if self.name == OURS:
            raise ValueError(
                f"{OURS} takes the steps of its solver: leave how() out, and give sg.sample "
                "solver=, walk= and nfe=."
            )
        if not self.config.get("skip_prk_steps", True):
            raise ValueError(
                f"{self.name} with skip_prk_steps = False begins with Runge-Kutta steps, which "
                "are no walk: set it to True, or take a walk of sdegen's, as walk='trailing'."
            )
        made = self.made(whole("steps", steps))
        asked, sde = made.timesteps.double(), self.sde
        if isinstance(sde, DiscreteVPSDE):
            counted = bool((asked == asked.round()).all())
            t = (asked + 1) / sde.n
            if not counted or any(self.config.get(name) for name in SPACED):
                # Between steps the level counts; labels, which may be rounded, follow it.
                t = sde.time(-made.sigmas[: len(asked)].double().log())
        else:
            t = made.sigmas[: len(asked)].double()
        # Theirs are float32, and a first beta that is small is known to some parts in a thousand.
        slack = 1e-2 if isinstance(sde, DiscreteVPSDE) else 1e-5
        within = bool(((t <= sde.T * (1 + 1e-5)) & (t >= sde.t_min * (1 - slack))).all())
        t = torch.where((t - sde.t_min).abs() < slack * sde.t_min, sde.t_min, t)
        if not self.denoises:
            t = torch.cat([t, t.new_tensor([sde.t_min])])
        t = t.unique_consecutive()
        if not within or not bool((t.diff() < 0).all()) or len(t) < 2 - self.denoises:
            raise ValueError(
                f"The {steps} steps of {self.name} are no walk of this model: their times must "
                f"fall within [t_min, T] = [{sde.t_min:g}, {sde.T:g}], but they are "
                f"{', '.join(f'{each:.4g}' for each in t.tolist()[:3])}, ..., {float(t[-1]):.4g}. "
                "Take a walk of sdegen's, as walk='log_snr'."
            )
        return t.clamp(sde.t_min, sde.T)

    def made(self, steps: int) -> Any:
        """Their scheduler, told how many steps; ValueError for what it refuses."""
        try:
            made = getattr(library(), self.name).from_config(self.config)
            made.set_timesteps(steps)
        except Exception as error:  # whatever their classes raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"diffusers' own {self.name} does not take this configuration for {steps} steps: "
                f"{reason}"
            ) from error
        return made


def read(config: Config) -> Said:
    """A scheduler's configuration, as its scheduler_config.json has it.

    What it does not say is as its class has it, and keys that its class does not take are ignored.
    ValueError for another scheduler, for a key that none of them takes, for one that says what we
    do not reproduce, and for a value of another kind than its class's own.
    """
    name = str(config.get("_class_name"))
    if name == OURS:
        known_keys(config, ("DDIMScheduler",), STEPPED)
        usual = {"clip_sample": False, **config, "_class_name": "DDIMScheduler"}
        said = read({key: value for key, value in usual.items() if key not in STEPPED})
        return replace(said, config={**said.config, "_class_name": OURS})
    if name not in KNOWN:
        raise ValueError(
            f"The scheduler {name} is not understood; those that are: {', '.join(KNOWN)}."
        )
    own = known_keys(config, (name,))
    c = {**defaults(name), **{key: config[key] for key in own}, "_class_name": name}
    refuse_kinds(c, defaults(name))
    if name.startswith("FlowMatch"):
        return flow(c, float(c["shift"]), 2)
    if name.startswith("EDM"):
        if (kind := c["prediction_type"]) != "epsilon":
            raise ValueError(
                f"{name} with prediction_type = {kind!r} preconditions otherwise than EDM: only "
                "'epsilon' is understood."
            )
        low, high, data = (float(c[key]) for key in ("sigma_min", "sigma_max", "sigma_data"))
        return Said(EDMSDE(t_min=low, T=high), "edm", label_c_noise, c, data)
    predicts = one_of(c["prediction_type"], "prediction_type", PREDICTS)
    if c.get("use_flow_sigmas", False):
        if predicts != "velocity" or c.get("final_sigmas_type", "zero") != "zero":
            raise ValueError(
                f"The configuration of {name} has use_flow_sigmas = True, which is not understood "
                f"with prediction_type = {c['prediction_type']!r} and final_sigmas_type = "
                f"{c.get('final_sigmas_type')!r}: only with 'flow_prediction' and 'zero'."
            )
        return flow(c, float(c["flow_shift"]), 1)
    if predicts == "velocity":
        raise ValueError(
            f"{name} with prediction_type = 'flow_prediction' is not understood without "
            "use_flow_sigmas = True: set it, or load the model with the configuration of "
            "FlowMatchEulerDiscreteScheduler."
        )
    sde = DiscreteVPSDE(tuple(betas(c).tolist()))
    return Said(sde, predicts, Steps(sde.n, -1.0), c)


def flow(config: dict[str, Any], shift: float, times: int) -> Said:
    """A model of flow matching, whose scheduler shifts sigma so many times,

        s sigma / (1 + (s - 1) sigma),

    from 1/n on; with s < 1 that is less.  Esser et al. (2024), eq. 23.
    """
    n = int(config["num_train_timesteps"])
    least = 1 / n
    for _ in range(times):
        least = shift * least / (1 + (shift - 1) * least)
    return Said(FlowSDE(T=1.0, t_min=min(1 / n, least)), "velocity", Steps(n), config)


def refuse_kinds(config: Config, usual: Mapping[str, Any]) -> None:
    """ValueError for a number, a yes or a no, or a count of steps that is none."""
    for key in UNDERSTOOD.intersection(usual):
        if key == "num_train_timesteps":
            whole(key, config[key])
        elif isinstance(usual[key], bool):
            flag(key, config[key])
        elif isinstance(usual[key], (int, float)):
            number(key, config[key])


def betas(config: Config) -> Tensor:
    """DDPM's betas of a configuration, (n,) in float64."""
    if (given := config.get("trained_betas")) is not None:
        found = listed(given)
    else:
        ends = float(config["beta_start"]), float(config["beta_end"])
        kind = one_of(config["beta_schedule"], "beta_schedule", SCHEDULES)
        found = kind(*ends, int(config["num_train_timesteps"]))
    return without_signal(found) if config.get("rescale_betas_zero_snr", False) else found


def listed(given: Any) -> Tensor:
    """trained_betas, (n,) in float64; ValueError for what is no list of numbers."""
    try:
        found = torch.as_tensor(given, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        found = None
    if found is None or found.dim() != 1:
        raise ValueError(f"trained_betas must be a list of numbers, but it is {short(given)}.")
    return found


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
