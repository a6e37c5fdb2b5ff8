"""sdegen's solvers as a scheduler inside diffusers' pipelines.

    pipe.scheduler = SdegenScheduler.from_config(pipe.scheduler.config, solver="unipc")

A pipeline asks its network itself and hands the output over, so that a solver runs here as its
program, without its model (``Program.talk``). The extra is sdegen[hf].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from torch import Tensor

from sdegen.checks import number, whole
from sdegen.interop.draws import Drawn, Recorded
from sdegen.interop.schedules import KNOWN, Said, defaults, known_keys, library, read
from sdegen.model.network import version
from sdegen.model.prediction import predicted
from sdegen.model.score import ScoreModel
from sdegen.noise.source import Noise
from sdegen.programs.program import Ask, Program, Reach, Talk
from sdegen.sampling.plan import Plan
from sdegen.sde.schedules import DiscreteVPSDE


class First(NamedTuple):
    """A step that stands alone, as it was told: its number, its state, its draws and outputs."""

    k: int
    x: Tensor
    noise: Recorded
    outputs: list[Tensor]


class Output(ScoreModel):
    """A model whose output is what a pipeline hands over; strength: of its guidance."""

    def __init__(self, said: Said, strength: float) -> None:
        super().__init__(self.hand, said.sde, said.predicts, time=said.label)
        self.handed: Tensor | None = None
        self.strength = number("guidance_scale", strength)

    def hand(self, x: Tensor, t: Tensor) -> Tensor:
        """It."""
        assert self.handed is not None
        return self.handed.to(x)


class SdegenScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """A solver of sdegen with fixed steps, and a walk, as a scheduler.

    solver:  a name of ``sg.solvers.catalogue()``; "recommended" is what ``sg.sample`` takes.
    walk:    a grid's name; by default the solver's own, or log_snr, or, of betas that are rescaled
             to zero terminal SNR, trailing, since log_snr has no beginning there.
    eta:     by default the solver's.
    guidance_scale: that of the pipeline's own guidance, by which "recommended" takes fewer values
             in few steps, as ``sg.sample`` does: a scheduler is not told.
    denoise: the last call is the step to sigma = 0, as their final_sigmas_type="zero".
    The others are those of a model's own scheduler, which ``from_config`` brings along:
    betas, prediction_type, clip_sample, thresholding.

    ``timesteps`` are steps counted as a model with num_train_timesteps betas knows them, which may
    lie between whole numbers; for a network that knows only these take walk="trailing" or
    "leading". Image-to-image's ``strength`` is a part of the timesteps, which log_snr crowds near
    the data: walk="trailing" begins where their schedulers do. From the same noise a pipeline ends
    where ``sg.sample`` does. Where it writes into its images between steps, as for inpainting, the
    solver's memory ends there. A copy or a pickle goes on from its timestep without memory.

    ValueError for solvers that choose their own steps and those whose steps are no program, for a
    step after the last, and for a network that predicts eps on betas of zero terminal SNR, where
    eps is the state itself.
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
        guidance_scale: float = 1.0,
        denoise: bool = True,
    ) -> None:
        said = {name: self.config[name] for name in MODELS}
        self.said = read({**said, "_class_name": "DDIMScheduler"})
        if rescale_betas_zero_snr and prediction_type == "epsilon":
            raise ValueError(
                "rescale_betas_zero_snr = True leaves no signal at the last of the betas, where "
                "prediction_type = 'epsilon' says nothing of the image: such models are trained "
                "with 'v_prediction' or 'sample'. Give the one of your model, or leave "
                "rescale_betas_zero_snr out."
            )
        self.model = Output(self.said, guidance_scale)
        self.plan: Plan | None = None
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)
        self.num_inference_steps: int | None = None
        self.begin(0)

    @classmethod
    def from_config(cls, config: Any = None, **more: Any) -> Any:  # type: ignore[override]
        """From another scheduler's configuration, of which every key is understood, or its own.

        What another says of its own way, as its order, spacing and end, is not taken over, nor
        what it ignores itself, as a clip_sample that EulerDiscreteScheduler was handed. What it
        does not say of the model is as its own class has it.
        ValueError for one that does not speak of DDPM's betas, as a flow's.
        """
        if isinstance(config, Mapping):
            own, name = defaults(cls), config.get("_class_name")
            other = name not in (None, cls.__name__)
            usual = defaults(str(name)) if other and hasattr(library(), str(name)) else {}
            for key in BENT.intersection(usual):
                raise ValueError(
                    f"{name} is not understood: the class has {key}, here "
                    f"{config.get(key, usual[key])!r}, by which its process is none of DDPM's "
                    "betas. Build the ScoreModel yourself."
                )
            if config.get("use_flow_sigmas", False):
                raise ValueError(
                    "SdegenScheduler steps models of DDPM's betas, but this configuration says "
                    "use_flow_sigmas = True: interop.diffusers.load has such a model, for "
                    "sg.sample."
                )
            known = name in KNOWN
            keys = known_keys(config, (str(name),) if known else KNOWN, () if known else own)
            wanted = keys.union(usual).intersection(MODELS) if other else keys
            config = {key: config.get(key, usual.get(key)) for key in wanted}
            if "beta_schedule" not in config:
                raise ValueError(
                    "SdegenScheduler steps models of DDPM's betas, but this configuration has no "
                    f"beta_schedule: {', '.join(config) or 'nothing'}."
                )
        return super().from_config(config, **more)

    # ------------------------------------------------------------------------- what pipelines ask

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Plan a walk of so many network calls. One that denoises is x0 of the state at T."""
        c: Any = self.config
        sde, n = self.said.sde, whole("num_inference_steps", num_inference_steps)
        lone, walk = n == 1 and c.denoise, c.walk
        if walk is None and isinstance(sde, DiscreteVPSDE) and sde.ends_without_signal:
            walk = "trailing"
        how: dict[str, Any] = {"solver": c.solver, "walk": walk, "eta": c.eta}
        how |= {"steps": 1} if lone else {"nfe": n, "denoise": c.denoise}
        self.plan = Plan.of(self.model, (1, 1), **how)
        program = runnable(self.plan)
        self.calls = () if lone else program.levels
        self.begins = {} if lone else firsts(program)
        self.last = len(self.calls)
        if c.denoise:
            self.calls = (*self.calls, sde(sde.T) if lone else self.plan.levels[-1])
        asked = torch.stack([level.t for level in self.calls])
        steps = asked * self.said.n - 1
        counted = bool((steps - steps.round()).abs().max() < 1e-6)
        self.timesteps = (steps.round().long() if counted else steps.float()).to(device)
        self.asked = self.timesteps.tolist()
        self.num_inference_steps = n
        self.begin(0)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at one of the timesteps, as image-to-image does."""
        self.begin(begin_index)

    def begin(self, index: int) -> None:
        """Nothing is remembered, and the next output is that of timestep number ``index``."""
        self.index = index
        self.talk: Talk | None = None
        self.first: First | None = None
        self.returned: tuple[Tensor, Tensor, int | None] | None = None

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
        **told: Any,
    ) -> Any:
        """The state at which the network is to be asked next, from its output at this one.

        Of an output of twice the channels, a learned variance's, the first half is taken. ``told``
        is what DDIMPipeline says: eta, refused where it is not the plan's, which the scheduler's
        own argument sets; and use_clipped_model_output, which clips here always do. (They are no
        named parameters: a pipeline that finds an eta among these says its default, 0, unasked.)
        """
        if self.plan is None:
            raise ValueError("Call set_timesteps(n) first: a scheduler has no walk before.")
        self.check(**told)
        if self.index == len(self.calls) and self.untouched(sample):
            raise ValueError(
                f"All {len(self.calls)} timesteps are done: set_timesteps(n) begins anew."
            )
        if not self.untouched(sample):
            self.start(sample, timestep, Drawn(generator))
        elif self.talk is None and self.index < self.last:
            self.extend()
        if model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output.chunk(2, 1)[0]
        level = self.calls[self.index]
        self.model.handed = model_output
        F = self.said.thresholded(self.model).output(sample, level)
        self.model.handed = None
        with torch.no_grad():
            if self.talk is None:  # the step to sigma = 0
                x = predicted(self.said.sde, self.model.target, sample, F, level).x0
            else:
                x = self.next_state(self.talk, F)
                if self.first is not None:
                    self.first.outputs.append(F)
        self.index += 1
        before = version(x)
        self.returned = x, x.clone() if before is None else x, before
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)

    def __len__(self) -> int:
        return self.said.n

    # -------------------------------------------------------------------------- the solver's side

    def __getstate__(self) -> dict[str, Any]:
        """All but what is under way."""
        return {**self.__dict__, "talk": None, "first": None, "returned": None}

    def check(
        self, eta: float | None = None, use_clipped_model_output: bool | None = None
    ) -> None:
        """ValueError for what a pipeline says of a step that the plan does otherwise."""
        assert self.plan is not None
        if eta is not None and eta != self.plan.equation.eta:
            raise ValueError(
                f"The pipeline says eta = {eta:g}, but {self.plan.solver} steps here with eta = "
                f"{self.plan.equation.eta}: say that in the pipeline's call, or give "
                "SdegenScheduler the eta and a solver that takes it."
            )
        clips = self.said.thresholded(self.model) is not self.model
        if use_clipped_model_output is False and clips:
            raise ValueError(
                "use_clipped_model_output = False keeps the eps of before the clip, but here x0 "
                "and eps are one pair: leave it out."
            )

    def untouched(self, sample: Tensor) -> bool:
        """Whether a state is the one that was returned last, and nobody has written into it.

        One that counts its versions tells; one made under inference_mode does not, and is compared
        with a copy.
        """
        if self.returned is None:
            return False
        x, kept, before = self.returned
        if version(x) != before:
            return False
        same = sample.shape == kept.shape and sample.dtype == kept.dtype
        return sample is kept or (same and torch.equal(sample, kept))

    def start(self, sample: Tensor, timestep: Any, noise: Noise) -> None:
        """Begin the rest of the walk at a state and a timestep.

        A state that was written into begins one step alone, since the next may be written into as
        well: ``extend`` goes on where it is not.
        """
        assert self.plan is not None
        now = float(timestep)
        same = [i for i, step in enumerate(self.asked) if step == now]
        if not same:
            raise ValueError(f"{now:g} is none of the timesteps that set_timesteps has made.")
        if self.index not in same:
            begin = (i for i in same if i in self.begins or i == self.last)
            self.index = next(begin, same[0])
        self.talk = self.first = None
        if self.index == self.last:
            return
        k = self.begins.get(self.index)
        if k is None:
            raise ValueError(
                f"{self.plan.solver} asks at timestep {now:g} within a step, where it cannot "
                "begin, nor an image be written into: take a solver of one call a step."
            )
        n = self.plan.walk.steps
        if self.returned is not None and k + 1 < n:
            n, noise = k + 1, Recorded(noise)
            self.first = First(k, sample.clone(), noise, [])
        self.talk = self.talked(k, n, sample, noise)

    def extend(self) -> None:
        """Go on from a step that stood alone, with all that is remembered of it: it is told again
        as the first of the rest of the walk."""
        assert self.plan is not None and self.first is not None
        k, x, noise, outputs = self.first
        self.first = None
        noise.rewind()
        self.talk = self.talked(k, self.plan.walk.steps, x, noise)
        with torch.no_grad():
            for F in outputs:
                self.next_state(self.talk, F)

    def talked(self, k: int, n: int, sample: Tensor, noise: Noise) -> Talk:
        """Steps k to n of the walk from a state, up to the first output that is asked for."""
        assert self.plan is not None
        plan = self.plan
        if (k, n) != (0, plan.walk.steps):
            times = plan.walk.times[k : n + 1]
            plan = Plan.of(
                self.model, (1, 1), solver=plan.solver, eta=plan.equation.eta, walk=times
            )
        talk = runnable(plan).talk(sample, noise)
        state, _ = next(talk)
        if state is not sample:
            raise ValueError(
                f"{plan.solver} changes the state before it asks, which no pipeline lets it: take "
                "a walk that does not climb."
            )
        return talk

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

BENT = {"snr_shift_scale"}
"""What a class may have that changes its model, and is not understood."""


def runnable(plan: Plan) -> Program:
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
