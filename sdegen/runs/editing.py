"""Editing, as tasks of ``sdegen-sample``: by renoising, and by another caption."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from sdegen.checks import number, one_of, optional, text, whole
from sdegen.data.captions import words_in
from sdegen.editing import (
    Alike,
    LocalBlend,
    Paired,
    PromptToPrompt,
    changed_where,
    marking,
    refinement,
    replacement,
    reweighting,
)
from sdegen.editing.pairs import both
from sdegen.editing.prompt import told
from sdegen.likelihood import encode
from sdegen.noise import Fresh, Noise
from sdegen.runs.folder import Run
from sdegen.runs.restoring import draw
from sdegen.sampling.plan import Plan
from sdegen.text import Encoder, Words, WordTransformer


@dataclass(frozen=True)
class Edit:
    """Images noised to t = start, and drawn again from there.  Meng et al. (2022), SDEdit."""

    start: float

    def __post_init__(self) -> None:
        if self.start is None:
            raise ValueError(
                "task=edit noises images to a time, and draws them again from there: say which, "
                "start=0.4 (a small one keeps more of them)."
            )
        number("start", self.start)


WORDS = {"replacement": replacement, "refinement": refinement}
"""How the words of two captions are found in one another, by the name in ``task.words``."""


@dataclass(frozen=True)
class P2P:
    """Samples of a prompt and, from the same noise, what another one makes of them: Hertz et al.
    (2022).

    to:       the other caption; None for the prompt itself, with other weights.
    words:    "replacement" of words one by one, or "refinement", which finds those that stay.
    until, until_self: rho down to which maps of tokens, and of places, are the first's.
    weights:  of words of ``to``, by which their maps are multiplied.
    blend:    words of either caption; outside of where they are looked at nothing changes.
    """

    to: str | None = None
    words: str = "replacement"
    until: float | None = 0.5
    until_self: float | None = None
    weights: dict[str, float] | None = None
    blend: str | None = None

    def __post_init__(self) -> None:
        one_of(self.words, "task.words", WORDS)
        optional(text, "task.blend", self.blend)
        if self.to is None and not self.weights:
            raise ValueError(
                "task=p2p edits samples of prompt=... by another caption, or by weights of its "
                "words: say 'task.to=\"...\"', or 'task.weights={red: 3.0}'."
            )
        if self.to is not None:
            text("task.to", self.to)

    def edits(self, prompt: str, before: int) -> dict[str, Any]:
        """What a pair is told of two captions."""
        to = prompt if self.to is None else self.to
        weights = reweighting(to, self.weights, before) if self.weights else None
        W = WORDS[self.words](prompt, to, before)
        found: dict[str, Any] = {
            "maps": PromptToPrompt(W, weights, self.until, self.until_self),
            "mask": None,
        }
        if self.blend is not None:
            found["mask"] = LocalBlend(*marked(prompt, to, self.blend, before))
        return found


@dataclass(frozen=True)
class DiffEdit:
    """Images encoded, and drawn again under another caption where it differs: Couairon et al.
    (2023).

    to:     the other caption.  start: the time to which images are encoded, None for T.
    rho:    sigma / alpha where the captions are compared.  draws, threshold: of the mask, as
            ``changed_where`` has them; its noises are the seed's.
    """

    to: str | None = None
    start: float | None = None
    rho: float = 1.0
    draws: int = 10
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if self.to is None:
            raise ValueError(
                "task=diffedit draws images of prompt=... again under another caption: say "
                "'task.to=\"...\"'."
            )
        text("task.to", self.to), whole("task.draws", self.draws)
        optional(number, "start", self.start)
        if not number("task.rho", self.rho) > 0:
            raise ValueError(f"task.rho is above 0, but it is {self.rho!r}.")
        if not 0 <= number("task.threshold", self.threshold) < 1:
            raise ValueError(f"task.threshold lies in [0, 1), but it is {self.threshold!r}.")


def marked(one: str, two: str, words: str, before: int) -> tuple[Tensor, Tensor]:
    """Where some words stand in each of two captions; ValueError for one that is in neither."""
    marking(f"{one} {two}", words)  # which looks for each of them
    own = [[w for w in words_in(words) if w in words_in(caption)] for caption in (one, two)]
    first, second = (
        marking(caption, " ".join(some or words_in(caption)), before) & bool(some)
        for caption, some in zip((one, two), own, strict=True)
    )
    return first, second


def before_words(encoder: Encoder) -> int:
    """Tokens before a caption's first word; ValueError for an encoder whose tokens are none."""
    if isinstance(encoder, Words):
        return 0
    if isinstance(encoder, WordTransformer):
        return 1
    raise ValueError(
        f"task=p2p mixes maps word by word, but the tokens of {type(encoder).__name__} are no "
        "words: take a run with text=words or text=transformer."
    )


@dataclass(frozen=True)
class Rewording:
    """Samples of a prompt, or images that it describes, beside what another caption makes of them.

    told: what a network is told of the other caption, by name (1, *).  pair: arguments of
    ``Paired``.  images: (n, *), None where samples begin as noise.  origin: where images are from.
    """

    task: P2P | DiffEdit
    told: Mapping[str, Tensor]
    pair: Mapping[str, Any]
    n: int
    images: Tensor | None = None
    origin: str = ""

    draws: ClassVar[int] = 1
    labels: ClassVar[None] = None

    @classmethod
    def of(
        cls, task: P2P | DiffEdit, run: Run, prompts: Sequence[str], n: int, images: Tensor | None
    ) -> Rewording:
        """ValueError for a run that takes no text, no prompt or several, and captions that do not
        fit."""
        name = type(task).__name__.lower()
        if run.text is None:
            raise ValueError(
                f"task={name} is of captions, but the run's model takes no text: take a run with "
                "text=words."
            )
        if len(prompts) != 1:
            raise ValueError(
                f"task={name} edits by another caption than one, but there are {len(prompts)}: "
                "give prompt=..."
            )
        pair = task.edits(prompts[0], before_words(run.text)) if isinstance(task, P2P) else {}
        told = run.text([prompts[0] if task.to is None else task.to])
        if images is None:
            return cls(task, told, pair, n)
        content = hashlib.sha256(images[0].numpy().tobytes()).hexdigest()[:16]
        return cls(task, told, pair, len(images), images, content)

    @property
    def start(self) -> float | None:
        """The time at which samples begin, None for T."""
        return self.task.start if isinstance(self.task, DiffEdit) else None

    def state(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of a state, of samples of a shape."""
        return (2, *shape)

    def noise(self, random: dict[str, Any]) -> dict[str, Any]:
        """The random numbers of ``solve``, alike for both halves."""
        return {"noise": Alike(random.get("noise") or Fresh())}

    def check(self, plan: Plan) -> None:
        """ValueError for a way down that images did not come up."""
        if self.images is not None and (
            plan.equation.noisy or not plan.solver.traits.follows_flow or plan.walk.climbs
        ):
            raise ValueError(
                "task=diffedit goes up and down the probability flow, but this way down is "
                f"{plan.solver} with eta = {plan.equation.eta}, along {plan.walk}: take an ODE "
                "solver, such as dpmpp, and a walk that falls."
            )

    def model(self, model: Any, guide: Callable[[Any], Any], first: int, m: int) -> Any:
        """The pair of m samples, each half guided."""
        others = {name: v.expand(m, *v.shape[1:]) for name, v in self.told.items()}
        other = model.given(**{name: v.to(model.device) for name, v in others.items()})
        pair = Paired(guide(model), guide(other), **self.pair)
        for each, own in ((pair.model, model), (pair.edited, other)):
            heard = told(each).conditions["mask"]
            if own.conditions["mask"].any() and not heard.any():
                raise ValueError(
                    f"task={type(self.task).__name__.lower()} edits what a model makes of its "
                    "caption, but this guidance asks one that is told none: say "
                    "guidance.conditional=true."
                )
        return pair

    def begin(
        self, model: Any, start: Sequence[int], first: int, noise: Noise | None, how: Any
    ) -> tuple[Any, Any]:
        """The model of what ``solve`` starts from, and that: a shape; or encodings, twice, and
        with the mask of their images."""
        if self.images is None:
            return model, start
        assert isinstance(self.task, DiffEdit)
        task, m = self.task, start[0]
        x = self.images[first : first + m].to(model.device)
        one, two = told(model.model), told(model.edited)
        mask = changed_where(
            one,
            two,
            x,
            rho=task.rho,
            draws=task.draws,
            threshold=task.threshold,
            noise=noise.source if isinstance(noise, Alike) else Fresh(),
        )
        plan = Plan.of(model, start, noise=noise, **how)
        z = encode(one, x, solver=plan.solver, walk=plan.walk)
        return model.changed(mask=mask), both(z)

    def parts(self, x: Tensor, first: int) -> dict[str, Tensor]:
        """Of pairs (b, 2, *) the edits, and what they are edits of."""
        kept, edited = (each.float() for each in x.unbind(1))
        return {"x": edited, "source": kept}

    def worth(self, x: Tensor) -> None:
        """Nothing: there is no edit to compare with."""

    def draw(self, made: Mapping[str, Tensor], path: Path, title: str) -> None:
        """A picture of some samples, and of their edits; of images too."""
        columns = {"sample": made["source"], "edited": made["x"]}
        if self.images is not None:
            columns = {"came back": made["source"], "edited": made["x"]}
        draw(path, title, self.images, columns)
