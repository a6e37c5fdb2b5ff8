"""sdegen's solvers as a scheduler inside diffusers' pipelines.

    pipe.scheduler = SdegenScheduler.from_config(pipe.scheduler.config, solver="unipc")

A pipeline asks its network itself and hands the output over, so that a solver runs here as its
program, without its model (``Program.talk``). The extra is sdegen[hf].
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from sdegen.interop.schedules import BETAS, CLIPS, GRIDS, STEPS, Said, check, read
from sdegen.model.prediction import predicted
from sdegen.model.score import ScoreModel
from sdegen.noise.source import Noise
from sdegen.programs.program import Ask, Program, Reach, Talk
from sdegen.sampling.plan import Plan
from sdegen.sde.level import Instant


@dataclass(frozen=True)
class Drawn(Noise):
    """Draws of a pipeline's generator, or of one for each image."""

    generator: torch.Generator | list[torch.Generator] | None

    def __call__(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """The next draws."""
        return randn_tensor(x.shape, self.generator, x.device, x.dtype)  # type: ignore[no-any-return]


class Output(ScoreModel):
    """A model whose output is what a pipeline hands over."""

    def __init__(self, said: Said) -> None:
        super().__init__(self.hand, said.sde, said.predicts, time=said.label)
        self.handed: Tensor | None = None

    def hand(self, x: Tensor, t: Tensor) -> Tensor:
        """It."""
        assert self.handed is not None
        return self.handed.to(x)


class SdegenScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """A solver of sdegen with fixed steps, and a walk, as a scheduler.

    solver:  a name of ``sg.solvers.catalogue()``; "recommended" is what ``sg.sample`` takes.
    walk:    a grid's name, by default the solver's own, or log_snr.
    eta:     by default the solver's.
    denoise: the last call is the step to sigma = 0, as their final_sigmas_type="zero".
    The others are those of a model's own scheduler, which ``from_config`` brings along:
    betas, prediction_type, clip_sample, thresholding.

    ``timesteps`` are steps counted as a model with num_train_timesteps betas knows them, which may
    lie between whole numbers; for a network that knows only these take walk="trailing" or
    "leading". From the same noise a pipeline ends where ``sg.sample`` does. Where it writes into
    its images between steps, as for inpainting, the solver's memory ends there.

    ValueError for solvers that choose their own steps and those whose steps are no program.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        prediction_type: str = "epsilon",
        rescale_betas_zero_snr: bool = False,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        solver: str = "recommended",
        walk: str | None = None,
        eta: float | None = None,
        denoise: bool = True,
    ) -> None:
        said = {name: self.config[name] for name in MODELS}
        self.said = read({**said, "_class_name": "DDIMScheduler"})
        self.model = Output(self.said)
        self.plan: Plan | None = None
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)
        self.num_inference_steps: int | None = None
        self.begin(0)

    @classmethod
    def from_config(cls, config: Any = None, **more: Any) -> Any:  # type: ignore[override]
        """From another scheduler's configuration, of which every key is understood, or its own.

        What another says of its own way, as its order, spacing and end, is not taken over.
        ValueError for one that does not speak of DDPM's betas, as a flow's.
        """
        if isinstance(config, Mapping):
            if "beta_schedule" not in config:
                raise ValueError(
                    "SdegenScheduler steps models of DDPM's betas, but this configuration has no "
                    f"beta_schedule: {', '.join(config) or 'nothing'}."
                )
            own = set(inspect.signature(cls.__init__).parameters)
            known = own | BETAS | CLIPS | GRIDS | STEPS | {"set_alpha_to_one"}
            check(config, known, "the other scheduler")
            config = {name: value for name, value in config.items() if name in own}
        return super().from_config(config, **more)

    # ------------------------------------------------------------------------- what pipelines ask

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Plan a walk of so many network calls."""
        c: Any = self.config
        self.plan = Plan.of(
            self.model,
            (1, 1),
            solver=c.solver,
            walk=c.walk,
            nfe=num_inference_steps,
            eta=c.eta,
            denoise=c.denoise,
        )
        self.calls = program(self.plan).levels
        if c.denoise:
            self.calls = (*self.calls, self.plan.levels[-1])
        asked = torch.stack([level.t for level in self.calls])
        steps = asked * self.said.n - 1
        whole = bool((steps - steps.round()).abs().max() < 1e-6)
        self.timesteps = (steps.round().long() if whole else steps.float()).to(device)
        self.num_inference_steps = num_inference_steps
        self.begin(0)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at one of the timesteps, as image-to-image does."""
        self.begin(begin_index)

    def begin(self, index: int) -> None:
        """Nothing is remembered, and the next output is that of timestep number ``index``."""
        self.index = index
        self.talk: Talk | None = None
        self.returned: tuple[Tensor, int] | None = None

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """A state as the network wants it: itself."""
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha x0 + sigma z at steps (b,)."""
        t = (timesteps.double().cpu() + 1) / self.said.n
        return self.said.sde.mix(original_samples, self.said.sde(t), noise)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> Any:
        """The state at which the network is to be asked next, from its output at this one.

        Of an output of twice the channels, a learned variance's, the first half is taken.
        """
        if self.plan is None:
            raise ValueError("Call set_timesteps(n) first: a scheduler has no walk before.")
        if not self.untouched(sample):
            self.start(sample, timestep, Drawn(generator))
        if model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output.chunk(2, 1)[0]
        level = self.calls[self.index]
        self.model.handed = model_output
        F = self.said.thresholded(self.model).output(sample, level)
        with torch.no_grad():
            if self.talk is None:  # the step to sigma = 0
                x = predicted(self.said.sde, self.model.target, sample, F, level).x0
            else:
                x = self.next_state(self.talk, F)
        self.index += 1
        self.returned = x, x._version
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)

    def __len__(self) -> int:
        return self.said.n

    # -------------------------------------------------------------------------- the solver's side

    def untouched(self, sample: Tensor) -> bool:
        """Whether a state is the one that was returned last, and nobody has written into it."""
        if self.returned is None:
            return False
        x, version = self.returned
        return (sample is x and x._version == version) or (
            sample.shape == x.shape and torch.equal(sample, x)
        )

    def start(self, sample: Tensor, timestep: Any, noise: Noise) -> None:
        """Begin the rest of the walk at a state and a timestep."""
        assert self.plan is not None
        now, steps = float(timestep), self.timesteps.tolist()
        whole = program(self.plan)
        begins = firsts(whole) | {len(whole.levels): self.plan.walk.steps}
        same = [i for i, step in enumerate(steps) if step == now]
        if not same:
            raise ValueError(f"{now:g} is none of the timesteps that set_timesteps has made.")
        if self.index not in same:
            self.index = next((i for i in same if i in begins), same[0])
        self.talk = None
        if self.index == len(whole.levels):
            return
        k = begins.get(self.index)
        if k is None:
            raise ValueError(
                f"{self.plan.solver} asks at timestep {now:g} within a step, where it cannot "
                "begin, nor an image be written into: take a solver of one call a step."
            )
        plan = self.plan
        if k:
            how = {"solver": plan.solver, "eta": plan.equation.eta, "walk": plan.walk.times[k:]}
            plan = Plan.of(self.model, (1, 1), **how)  # type: ignore[arg-type]
        self.talk = program(plan).talk(sample, noise)
        state, _ = next(self.talk)
        if state is not sample:
            raise ValueError(
                f"{plan.solver} changes the state before it asks, which no pipeline lets it: take "
                "a walk that does not climb."
            )

    def next_state(self, talk: Talk, F: Tensor) -> Tensor:
        """Hand an output over, and the state that is asked at next, or the last one."""
        state, asked = talk.send(F)
        while asked is None:
            last = state
            try:
                state, asked = next(talk)
            except StopIteration:
                self.talk = None
                return last.clone()
        return state.clone()


MODELS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
    "clip_sample",
    "clip_sample_range",
    "thresholding",
    "dynamic_thresholding_ratio",
    "sample_max_value",
)
"""What of the configuration is the model's."""


def program(plan: Plan) -> Program:
    """A plan's program; ValueError where there is none."""
    if plan.program is None:
        raise ValueError(
            f"{plan.solver} has no program for a pipeline to run: take a solver with fixed steps, "
            "whose steps are linear, such as dpmpp, unipc, ddim or heun."
        )
    return plan.program


def firsts(program: Program) -> dict[int, int]:
    """The network calls that begin a step, and which step each begins."""
    found, step, fresh = {}, 0, True
    for line in program.lines:
        if isinstance(line, Ask):
            if fresh:
                found[line.i] = step
            fresh = False
        elif isinstance(line, Reach):
            step, fresh = step + 1, True
    return found
