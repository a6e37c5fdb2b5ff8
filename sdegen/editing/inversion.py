"""Data edited along the path that leads to it: directly, and by a null that is fitted to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from sdegen.checks import accepted, number, whole
from sdegen.editing.pairs import Paired, both
from sdegen.editing.prompt import told
from sdegen.guidance.free import CFG
from sdegen.guidance.scales import step_at
from sdegen.guidance.wrapped import Wrapped, strength_of
from sdegen.likelihood.flow import check_ends, flow_plan
from sdegen.likelihood.ground import check_data, states_at
from sdegen.model.denoiser import Denoiser, cost_of
from sdegen.model.prediction import LinearPrediction
from sdegen.model.score import ScoreModel
from sdegen.networks.tokens import Tokens
from sdegen.noise.source import Fresh
from sdegen.sampling.plan import WAY, Plan, Way
from sdegen.sde.level import Instant, Level, expand
from sdegen.sde.process import linear
from sdegen.solvers import DDIM
from sdegen.solvers.equation import Reverse
from sdegen.solvers.solver import Step, walked
from sdegen.walks.grids import WalkLike

if TYPE_CHECKING:
    from typing_extensions import Unpack


def direct_inversion(
    model: Denoiser, pair: Paired, x: Tensor, **how: Unpack[Way]
) -> tuple[Tensor, Tensor]:
    """Data x (b, *) encoded by ``model`` and decoded by a pair: x itself, and its edit.

    The encoding's states x_k are kept; on the way down the first half's step is corrected by
    d_k = x_k - step(x_{k-1}), so that it is x_k: what the second half sees of it are the data's
    own maps, however the pair is guided. Ju et al. (2024), algorithm 1.

    model: unguided, as the flow that the states are of.  how: as ``encode``'s; the steps are the
    pair's, nfe what one way down spends on a sample. float64 but for the networks, as there.

    ValueError for what is no pair, two SDEs, an SDE without marginals, and a guided model.
    """
    accepted("direct_inversion", how, WAY)
    pair = check_pair(pair, model, "direct_inversion")
    refuse_guided(model, "direct_inversion")
    with torch.no_grad():
        check_data(model, x)
        plan = flow_plan(pair, both(x), how)
        states = encoded(plan, model, x)
        z, *targets = reversed(states)
        found = iter(targets)

        def corrected(step: Step) -> Step:
            first = next(found)
            return step._replace(x=torch.stack([first, pair.outside(first, step.x[:, 1])], 1))

        end = followed(plan, both(z), corrected)
    kept, changed = end.unbind(1)
    return kept, changed


def check_pair(pair: Paired, model: Denoiser, who: str) -> Paired:
    """A pair itself; ValueError where it is none, or of another SDE than the model."""
    linear(model.sde, who, "take a LinearSDE")
    if not isinstance(pair, Paired):
        raise ValueError(f"{who} takes a pair, Paired(model, edited, ...), but it is {pair!r}.")
    if pair.sde != model.sde:
        raise ValueError(f"{who} is of models on one SDE, not {model.sde} and {pair.sde}.")
    return pair


def refuse_guided(model: Denoiser, who: str) -> None:
    """ValueError for a guided model, whose flow does not lead back where it came from."""
    if (strength := strength_of(model)) != 1.0:
        raise ValueError(
            f"{who} encodes without guidance, but this model is guided with {strength:g}: give "
            "the one inside."
        )


def encoded(plan: Plan, model: Denoiser, x: Tensor) -> list[Tensor]:
    """The states of data x (b, *) on the way up a plan's walk, from its end to its start."""
    check_ends(plan)
    states = [states_at(model, x, plan.walk[-1])]
    flow = Reverse(model, 0.0, Fresh())
    for step in walked(plan.solver, flow, states[0], plan.walk.levels[::-1], upward=True):
        states.append(step.x)
    return states


def followed(plan: Plan, x: Tensor, keep: Callable[[Step], Step]) -> Tensor:
    """Data at the end of a plan's walk down from x (b, *), each step being what ``keep`` makes of
    it."""
    for step in walked(plan.solver, plan.equation, x, plan.walk.levels, keep):  # noqa: B007
        pass
    at = plan.walk[-1]
    assert isinstance(at, Level)
    return step.x / expand(at.alpha, step.x)  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------- a null of its own


class NullText(Wrapped):
    """CFG from a caption to nulls of a model's own, a sequence of vectors at each step.

        F = F_k + scale (F_c - F_k),   F_k the model that is told nulls[:, k] from times[k] on

    ``null_text`` makes one whose DDIM along ``times`` leads back to data. ``given`` tells another
    caption, guided from the same nulls: Mokady et al. (2023). Edits of maps are of the caption's
    alone.

    nulls: (b, n, m, e), n steps and m tokens as the model is told.
    """

    own: ClassVar[tuple[str, ...]] = ("nulls",)

    def __init__(
        self, model: ScoreModel, scale: float, times: Sequence[float], nulls: Tensor
    ) -> None:
        super().__init__(as_vectors(model))
        if len(times) != nulls.shape[1] + 1:
            raise ValueError(f"There are {nulls.shape[1]} nulls of {len(times) - 1} steps.")
        self.scale, self.times = number("scale", scale), tuple(map(float, times))
        self.nulls = nulls.to(model.device)

    def given(self, shared: Mapping[str, Any] | None = None, /, **conditions: Any) -> NullText:
        """The same with another caption, guided from the same nulls."""
        model = self.model.given(shared, **conditions)  # type: ignore[attr-defined]
        return self.changed(model=as_vectors(model))  # type: ignore[no-any-return]

    @property
    def cost(self) -> int:
        """Two evaluations; one where the scale is 1 or 0."""
        return cost_of(self.model) * (1 if self.scale in (0, 1) else 2)

    @property
    def strength(self) -> float:
        """The scale."""
        return max(self.scale, 1 - self.scale)

    @property
    def jumps(self) -> bool:
        """A step's null is its own."""
        return True

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F of the guided model."""
        k = step_at(self.times, level)
        null = self.nulls[:, k] if isinstance(k, int) else self.nulls[torch.arange(len(k)), k]
        return from_null(self.model, null, self.scale).output(x, level)


def from_null(model: Any, null: Tensor, scale: float) -> CFG:
    """A model guided from a null (b, m, e), where nothing is edited."""
    others = {"mask": True, "edit": None}
    others = {name: value for name, value in others.items() if name in model.conditions}
    return CFG(model, scale, {"tokens": null, **others})


def as_vectors(model: Denoiser) -> Any:
    """A model that is told the vectors of its words, which may be changed, in place of their
    numbers: the same model. ``mask`` says where there is a word.

    ValueError for a model that is told no tokens, and a network that is none of sdegen.networks.
    """
    table, tokens = table_of(model), told(model).conditions["tokens"]
    if tokens.is_floating_point():
        return model
    mask = told(model).conditions.get("mask")
    seen = tokens != 0 if mask is None else mask & (tokens != 0)
    with torch.no_grad():
        return model.given(tokens=table.vectors(tokens), mask=seen)  # type: ignore[attr-defined]


def table_of(model: Denoiser) -> Tokens:
    """Where a model's network looks its tokens up; ValueError for one that is told none, and for a
    network that has no such place."""
    inside = told(model)
    found = getattr(inside.net, "tokens", None)
    if not isinstance(found, Tokens):
        raise ValueError(
            "Vectors of tokens are those of a network of sdegen.networks that looks them up or "
            f"takes them itself, but this one is {type(inside.net).__name__}."
        )
    if inside.conditions.get("tokens") is None:
        raise ValueError("The model was told no tokens: model.given(tokens=..., mask=...).")
    return found


def null_text(
    model: ScoreModel,
    x: Tensor,
    scale: float,
    *,
    steps: int = 50,
    walk: WalkLike | None = None,
    iterations: int = 10,
    rate: float = 0.01,
    tolerance: float = 1e-5,
) -> NullText:
    """The guided model whose DDIM leads back to data x (b, *), by nulls that are fitted to it.

    x is encoded without guidance, x_k its states. On the way down, at each step k of n,

        min over null  |x_{k+1} - DDIM(x'_k; F_null + scale (F_c - F_null))|^2 / d

    by Adam, ``iterations`` at the rate ``rate`` (1 - k / 2n), from the null of the step before,
    at first what the network has learned to be told instead of a caption; x'_{k+1} is where the
    fitted step leads. A sample's null is at rest once its mean square is below ``tolerance``, and
    none knows of other samples. Mokady et al. (2023), section 3.2 and algorithm 1.

    model: told a caption, unguided.  Encode its state at noise and draw from there with
    ``DDIM()`` along ``walk=found.times``: ``direct_inversion`` is exact and costs nothing beside.

    ValueError for a model that is told no tokens, a network whose tokens are no vectors of its
    own, and numbers out of range.
    """
    whole("iterations", iterations, 0), number("rate", rate, 0), number("tolerance", tolerance, 0)
    linear(model.sde, "null_text", "take a LinearSDE")
    refuse_guided(model, "null_text")
    with torch.inference_mode(False), torch.no_grad():
        check_data(model, x)
        model = as_vectors(model)
        like, table = model.conditions["tokens"], table_of(model)
        null = table.none.detach().expand_as(like).clone()
        plan = flow_plan(model, x, {"solver": DDIM(), "steps": steps, "walk": walk})
        state, *targets = reversed(encoded(plan, model, x.clone()))
        nulls = list[Tensor]()
        n = len(targets)
        for k, ((t, s), target) in enumerate(
            zip(pairwise(plan.walk.levels), targets, strict=True)
        ):
            fit = Fit(model, scale, state, t, s, target)  # type: ignore[arg-type]
            null = fitted(fit, null, iterations, rate * (1 - k / (2 * n)), tolerance)
            nulls.append(null)
            state = fit.step(null)
    return NullText(model, scale, plan.walk.times.tolist(), torch.stack(nulls, 1))


class Fit:
    """A DDIM step from t to s and where it should lead, as a function of the null."""

    def __init__(
        self, model: ScoreModel, scale: float, x: Tensor, t: Level, s: Level, target: Tensor
    ) -> None:
        self.model, self.scale, self.x, self.t, self.s = model, scale, x, t, s
        self.target = target
        self.F = model.output(x, t)

    def step(self, null: Tensor) -> Tensor:
        """x_s = alpha_s x0 + sigma_s eps."""
        other = from_null(self.model, null, 0.0).output(self.x, self.t)
        F = other + self.scale * (self.F - other)
        p = LinearPrediction(self.x, F, self.t, *self.model.target(self.t))
        return p.view(self.s.alpha, self.s.sigma)

    def loss(self, null: Tensor) -> Tensor:
        """The mean square of each sample (b,)."""
        return (self.step(null) - self.target).square().flatten(1).mean(1)


def fitted(fit: Fit, null: Tensor, iterations: int, rate: float, tolerance: float) -> Tensor:
    """The null by Adam: Kingma & Ba (2015), algorithm 1, of each sample by itself."""
    m, v = torch.zeros_like(null), torch.zeros_like(null)
    for i in range(1, iterations + 1):
        with torch.enable_grad():
            leaf = null.clone().requires_grad_()
            loss = fit.loss(leaf)
            (g,) = torch.autograd.grad(loss.sum(), leaf)
        fit.model.count(vjps=1)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        move = rate * (m / (1 - 0.9**i)) / ((v / (1 - 0.999**i)).sqrt() + 1e-8)
        going = (loss.detach() > tolerance).reshape(-1, *[1] * (null.ndim - 1))
        null = torch.where(going, null - move, null)
    return null
