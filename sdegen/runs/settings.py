"""The settings of the commands, one checked value each: what is wrong is one sentence.

conf/ says what they are by default; here is what they may be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from sdegen.checks import flag, folder_name, number, one_of, optional, text, texts, whole
from sdegen.files import short
from sdegen.training.profiles import power_gamma
from sdegen.training.settings import TrainSettings

Node = dict[str, Any]
"""What Hydra builds an object of: a ``_target_`` and its arguments."""

T = TypeVar("T")


def read(kind: type[T], config: Mapping[str, Any]) -> T:
    """Settings from a composed configuration; ValueError for a key too many or too few.

    A name may be a number, as a folder's may.
    """
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    for name in config:
        if name not in known:
            keys = ", ".join(sorted(known))
            raise ValueError(f"There is no setting {name}: it must be one of {keys}.")
    values = dict(config)
    for name, each in known.items():
        if name not in config and each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"The setting {name} has no value: give {name}=...")
        value = values.get(name)
        if each.type == "str" and isinstance(value, int | float) and not isinstance(value, bool):
            values[name] = str(value)
    return kind(**values)


def record(settings: Any) -> dict[str, Any]:
    """Settings for a file: the configuration they were read from, whose empty groups are none."""
    values = {each.name: (each.default, getattr(settings, each.name)) for each in fields(settings)}
    return {name: value for name, (default, value) in values.items() if value is not default}


WEIGHTS = ("finished", "averaged", "raw")
"""Which weights of a run are meant."""


def refuse_weights(
    weights: str, step: int | None, ema: float | None, ema_std: float | None = None
) -> None:
    """ValueError for weights that no run has."""
    one_of(weights, "weights", dict.fromkeys(WEIGHTS))
    optional(whole, "step", step)
    optional(number, "ema", ema, 0)
    if ema_std is not None:
        power_gamma(ema_std)
    if ema is not None and ema_std is not None:
        raise ValueError(
            f"ema={ema} is the decay of one average, and ema_std={ema_std} the width of another: "
            "give one of them."
        )
    for name, value in {"ema": ema, "ema_std": ema_std}.items():
        if weights == "raw" and value is not None:
            raise ValueError(f"{name}={value} is of an average, but weights=raw are not averaged.")


OF_SAMPLES = ("frechet", "sliced")
"""What is measured of samples, by the names of a ``Row``."""


def objective(name: str, value: str, known: Sequence[str]) -> None:
    """Refuse the name of a number that a command does not know."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, but it is {value!r}.")


@dataclass(frozen=True)
class SampleSettings:
    """Of ``sdegen-sample``.

    run: the folder of a finished run.  name: of the samples' folder. n: samples. nfe or steps,
    eta, seed and denoise as ``solve`` has them; eta and seed may be lists. batch_size: samples
    at once. devices: processes, one per device. classes: names or numbers, None for the
    training data's shares. weights: "finished", or of the last checkpoint, "averaged" or
    "raw". step: of a checkpoint that was kept. ema: the decay of the average, where there are
    several; ema_std: the width of one that is made of snapshots. quality: whether the samples
    are measured. formats: files beside the .safetensors: "png", "npz", of clips "gif". objective:
    the number that the command returns, "frechet" or "sliced", None for none. guidance: what is
    made of the model, a wrapper or several by name. task: what is done to held-out images, or
    those of the file ``image``, n at most, with ``draws`` samples of each. observation: how a
    model that was not trained for the task is told what is seen. start: the time to which
    task=edit noises, and task=diffedit encodes. prompt: the text that samples are told, or
    several, n samples of each; prompts: a file with one a line instead. truncate: the time that
    sampling starts from, with a Gaussian fitted to the training data; None for T.
    """

    run: str
    name: str
    n: int
    nfe: int | None
    steps: int | None
    eta: float | list[float] | None
    seed: int | list[int] | None
    denoise: bool
    batch_size: int
    classes: list[int | str] | None
    weights: str
    devices: int
    step: int | None
    ema: float | None
    ema_std: float | None
    quality: bool
    formats: list[str]
    objective: str | None
    device: str
    packages: list[str]
    start: float | None
    image: str | None
    draws: int | None
    prompt: str | list[str] | None
    prompts: str | None
    truncate: float | None
    solver: Node | None = None
    walk: Node | None = None
    guidance: Node | None = None
    task: Node | None = None
    observation: Node | None = None

    def __post_init__(self) -> None:
        text("run", self.run), folder_name("name", self.name), text("device", self.device)
        optional(number, "truncate", self.truncate, 0)
        for name in ("n", "batch_size", "devices"):
            whole(name, getattr(self, name))
        for name in ("nfe", "steps"):
            optional(whole, name, getattr(self, name))
        for eta in self.eta if isinstance(self.eta, list) else [self.eta]:
            optional(number, "eta", eta, 0)
        for seed in self.seed if isinstance(self.seed, list) else [self.seed]:
            optional(whole, "seed", seed, None)
        flag("denoise", self.denoise), flag("quality", self.quality)
        texts("packages", self.packages), texts("formats", self.formats)
        refuse_weights(self.weights, self.step, self.ema, self.ema_std)
        for each in self.formats:
            one_of(each, "format", dict.fromkeys(("png", "npz", "gif")))
        optional(objective, "objective", self.objective, OF_SAMPLES)
        if self.objective is not None and not self.quality:
            raise ValueError(f"objective={self.objective} is measured: leave out quality=false.")
        seeds = len(self.seed) if isinstance(self.seed, list) else self.n
        if seeds != self.n:
            raise ValueError(f"There are {seeds} seeds for n = {self.n} samples: give one each.")
        self.refuse_without_task()
        self.refuse_prompts()
        if self.classes is not None and (not isinstance(self.classes, list) or not self.classes):
            raise ValueError(f"classes must be a list, classes=[...], but it is {self.classes!r}.")

    @cached_property
    def texts(self) -> list[str]:
        """The texts that samples are told, none where nothing was said; ValueError for a file
        that cannot be read or has none."""
        if self.prompts is None:
            return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt or ())
        return lines_of(Path(self.prompts))

    def refuse_prompts(self) -> None:
        """ValueError for what is no text, and for what goes with none."""
        optional(text, "prompts", self.prompts)
        several = self.prompt if isinstance(self.prompt, list) else [self.prompt or ""]
        if not several or not all(isinstance(each, str) for each in several):
            raise ValueError(f"prompt is a text, or a list of some, but it is {self.prompt!r}.")
        if self.prompt is not None and self.prompts is not None:
            raise ValueError(
                "prompt=... and prompts=FILE both say what samples are told: give one."
            )
        if self.prompt is None and self.prompts is None:
            return
        if self.classes is not None:
            raise ValueError("A run is told texts or classes: leave prompt or classes out.")
        if isinstance(self.seed, list):
            raise ValueError("With prompts a seed is one number: each sample has its own stream.")

    def refuse_without_task(self) -> None:
        """ValueError for what only a task has, and what it has not."""
        optional(number, "start", self.start)
        optional(text, "image", self.image)
        optional(whole, "draws", self.draws)
        given = {"image": self.image, "draws": self.draws, "observation": self.observation}
        if not self.task:
            for name, value in {**given, "start": self.start}.items():
                if value is not None and value != {}:
                    raise ValueError(f"{name} belongs to a task: give task=..., or leave it out.")
            return
        if self.start is not None and "start" not in self.task:
            raise ValueError(
                f"start={self.start} belongs to task=edit and diffedit: leave it out."
            )
        if isinstance(self.seed, list):
            raise ValueError("With a task a seed is one number: each sample has its own stream.")

    @property
    def title(self) -> str:
        """A folder name that says what differs between the jobs of a sweep, and fits a file."""
        how = {"nfe": self.nfe, "steps": self.steps, "eta": self.eta, "seed": self.seed}
        image = self.image and f"-{Path(self.image).stem}"
        said = self.prompts and f"-{Path(self.prompts).stem}"
        which = {"at": self.step, "ema": self.ema, "ema_std": self.ema_std}
        parts: dict[str, Any] = {**which, "image": image, "prompts": said, **how}
        given = list[str]()
        for key, value in parts.items():
            if isinstance(value, list):  # one alone is no number; no brackets, which a shell reads
                given.append(f"{key}s{'_'.join(map(str, value))}")
            elif value is not None:
                given.append(f"{key}{value}")
        return short("-".join([self.name, *given, *(["denoise"] if self.denoise else [])]))


@dataclass(frozen=True)
class TuneSettings:
    """Of ``sdegen-tune``: a finished run, the name of the solver's file, and ``tune``'s own."""

    run: str
    name: str
    nfe: int
    coefficients: bool
    seeds: int
    iterations: int
    fine: int
    batch: int
    seed: int
    device: str
    packages: list[str]

    def __post_init__(self) -> None:
        text("run", self.run), folder_name("name", self.name), text("device", self.device)
        for name in ("nfe", "seeds", "iterations", "fine", "batch"):
            whole(name, getattr(self, name))
        whole("seed", self.seed, None)
        flag("coefficients", self.coefficients), texts("packages", self.packages)


def lines_of(path: Path) -> list[str]:
    """The lines of a file that are not empty; ValueError where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The file prompts={path} cannot be read: {error}.") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise ValueError(f"The file prompts={path} has no line with a text.")
    return found


OF_LIKELIHOODS: dict[str, Any] = {
    **dict.fromkeys(("solver", "walk", "steps", "nfe", "divergence", "probes", "repeats")),
    **{"protocol": None, "name": "likelihood", "importance": 1, "elbo_draws": 0},
    **{"ddpm_steps": 0, "bounds_on": "dequantised", "weights": "finished"},
    **dict.fromkeys(("step", "ema", "ema_std")),
}
"""What features have nothing of, as it is by default."""


@dataclass(frozen=True)
class EvaluateSettings:
    """Of ``sdegen-evaluate``.

    run: the folder of a finished run.  name: of the results' folder in it.  weights to ema_std:
    which weights, as ``sdegen-sample`` has them.  n: samples, None for
    all of the split, ``batch`` at a time.  solver to protocol as ``log_prob`` and ``bits_per_dim``
    have them, None for their defaults.  elbo_draws, ddpm_steps: of the bounds, 0 for none of
    them; bounds_on: "dequantised" data or its "values".  objective: the mean that the command
    returns, "flow", "elbo" or "ddpm", None for none.

    features: what ``samples``, a folder of the run's, are compared with n data in, instead of
    likelihoods; the objective is then "frechet" or "kernel", and what belongs to likelihoods must
    be left out.
    """

    run: str
    name: str
    split: str
    n: int | None
    batch: int
    steps: int | None
    nfe: int | None
    divergence: str | None
    probes: int | None
    repeats: int | None
    importance: int
    protocol: str | None
    elbo_draws: int
    ddpm_steps: int
    bounds_on: str
    objective: str | None
    seed: int
    device: str
    packages: list[str]
    samples: str | None
    weights: str
    step: int | None
    ema: float | None
    ema_std: float | None
    data: Node | None = None
    solver: Node | None = None
    walk: Node | None = None
    features: Node | None = None

    def __post_init__(self) -> None:
        text("run", self.run), folder_name("name", self.name), text("device", self.device)
        for name in ("batch", "importance"):
            whole(name, getattr(self, name))
        for name in ("n", "steps", "nfe", "probes", "repeats"):
            optional(whole, name, getattr(self, name))
        for name in ("elbo_draws", "ddpm_steps"):
            whole(name, getattr(self, name), 0)
        whole("seed", self.seed, None), texts("packages", self.packages)
        refuse_weights(self.weights, self.step, self.ema, self.ema_std)
        if self.split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', but it is {self.split!r}.")
        for name in ("divergence", "protocol"):
            optional(text, name, getattr(self, name))
        one_of(self.bounds_on, "bounds_on", {"values": True, "dequantised": False})
        if self.samples is not None and self.features is None:
            raise ValueError(f"samples={self.samples} are compared by features: give features=...")
        for name, usual in OF_LIKELIHOODS.items() if self.features else ():
            if getattr(self, name) not in (usual, {}):
                raise ValueError(f"{name} belongs to likelihoods: leave it or features out.")
        known = ("frechet", "kernel") if self.features else ("flow", "elbo", "ddpm")
        optional(objective, "objective", self.objective, known)
        needed = {"elbo": "elbo_draws", "ddpm": "ddpm_steps"}.get(self.objective or "")
        if needed and not getattr(self, needed):
            raise ValueError(f"objective={self.objective} is measured with {needed} >= 1.")

    @property
    def title(self) -> str:
        """A folder name that says which weights are meant, where it is not those of the end."""
        which = {"at": self.step, "ema": self.ema, "ema_std": self.ema_std}
        given = [f"{key}{value}" for key, value in which.items() if value is not None]
        own = [] if self.weights == "finished" else [self.weights]
        return short("-".join([self.name, *own, *given]))


@dataclass(frozen=True)
class Comparison:
    """What ``sdegen-train`` samples with in the end: solvers by name, at these budgets."""

    solvers: dict[str, Node]
    budgets: list[int]
    seed: int

    def __post_init__(self) -> None:
        if not isinstance(self.budgets, list) or not self.budgets:
            raise ValueError(
                "evaluate.budgets must be a list of network calls, as [10,20], but it is "
                f"{self.budgets!r}."
            )
        for budget in self.budgets:
            whole("evaluate.budgets", budget)
        whole("evaluate.seed", self.seed, None)


@dataclass(frozen=True)
class Experiment:
    """Of ``sdegen-train``; an experiment's file may have keys of its own besides."""

    sde: Node
    net: Node
    model: Node
    data: Node
    loss: Node
    train: TrainSettings
    evaluate: Comparison
    conditional: bool
    packages: list[str]
    walk: Node | None = None
    task: Node | None = None
    text: Node | None = None
    head_net: Node | None = None
    logger: Node | None = None
    objective: str | None = None

    def __post_init__(self) -> None:
        flag("conditional", self.conditional), texts("packages", self.packages)
        optional(objective, "objective", self.objective, OF_SAMPLES)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Experiment:
        """From a composed configuration."""
        known = {each.name: config[each.name] for each in fields(cls) if each.name in config}
        parts = {"train": read(TrainSettings, config.get("train") or {})}
        compared = {"solvers": {}, **(config.get("evaluate") or {})}
        return read(cls, {**known, **parts, "evaluate": read(Comparison, compared)})
