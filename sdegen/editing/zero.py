"""pix2pix-zero: an edit by a direction of captions, held to where the source's words are looked
at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdegen.checks import accepted, number
from sdegen.editing.inversion import as_vectors, check_pair, followed
from sdegen.editing.pairs import Paired, both
from sdegen.editing.prompt import Maps, check_made, check_told, keeping, told, with_edit
from sdegen.guidance.classifier import leaf
from sdegen.guidance.wrapped import at_large
from sdegen.likelihood.flow import flow_plan
from sdegen.likelihood.ground import check_batch
from sdegen.model.denoiser import Denoiser
from sdegen.sampling.plan import WAY, Way
from sdegen.sde.level import Instant
from sdegen.solvers.solver import Step

if TYPE_CHECKING:
    from typing_extensions import Unpack


def edit_direction(model: Denoiser, edited: Denoiser) -> Tensor:
    """What is added to the vectors of a caption, (m, e): the mean difference of two models'.

    Each is told n captions of one kind, as "a red one", "a red two" and "a blue one", "a blue
    two". Parmar et al. (2023), section 3.1.

    ValueError for models that are told no tokens, and captions of two lengths.
    """
    one, two = (told(as_vectors(each)).conditions["tokens"] for each in (model, edited))
    if one.shape[1:] != two.shape[1:]:
        raise ValueError(
            f"A direction is of captions with as many tokens, but they are of {one.shape[1]} and "
            f"{two.shape[1]}."
        )
    direction: Tensor = two.mean(0) - one.mean(0)
    return direction


def pix2pix_zero(
    pair: Paired, z: Tensor, *, strength: float = 0.1, **how: Unpack[Way]
) -> tuple[Tensor, Tensor]:
    """Encodings z (b, *) decoded by a pair: its first half, and an edit that keeps its layout.

    Before each step from a level the edit's state descends by how far its maps of
    cross-attention M are off those of the first half there,

        x <- x - strength grad_x sum_layers |M(x) - M_ref|^2,

    summed over places and tokens and averaged over heads. Parmar et al. (2023), section 3.2. M is
    of the caption's evaluation, and all of a guided model's then are at the state that has moved.
    An evaluation of each half's caption and a product with the Jacobian are spent on a step beside
    the pair's own.

    pair: told two captions of as many tokens.  how: as ``decode``'s.

    ValueError for what is no pair, a pair that is told no tokens, captions of two lengths, and a
    strength that is negative.
    """
    accepted("pix2pix_zero", how, WAY | {"strength"})
    number("strength", strength, 0)
    pair = check_pair(pair, pair, "pix2pix_zero")
    for each in (pair.model, pair.edited):
        check_told(each, "pix2pix_zero")
    with torch.no_grad():
        start = both(check_batch("An encoding", z).to(pair.device, torch.float64))
        plan = flow_plan(pair, start, how)
        top, *levels = plan.walk.levels[:-1]
        below = iter(levels)

        def held(step: Step) -> Step:
            level = next(below, None)
            return (
                step if level is None else step._replace(x=towards(pair, step.x, level, strength))
            )

        kept, changed = followed(plan, towards(pair, start, top, strength), held).unbind(1)
    return kept, changed


def towards(pair: Paired, x: Tensor, level: Instant, strength: float) -> Tensor:
    """A pair of states (b, 2, *) whose second half has moved, as above."""
    one, two = x.unbind(1)
    seen, made, level = Maps(), Maps(), at_large(level)
    with torch.inference_mode(False):
        source, edited = told(pair.model), told(pair.edited)
        with_edit(source, keeping(seen)).output(one.clone(), level)
        with torch.enable_grad():
            state = leaf(two.clone())
            with_edit(edited, keeping(made)).output(state, level)
            check_made(made, "pix2pix_zero")
            (push,) = torch.autograd.grad(off(seen, made).sum(), state)
    pair.count(vjps=1)
    return torch.stack([one, pair.outside(one, two - strength * push)], 1)


def off(seen: Maps, made: Maps) -> Tensor:
    """sum_layers |M - M_ref|^2 of each sample (b,)."""
    found = list[Tensor]()
    for place, maps in made.items():
        if not place.cross:
            continue
        if place not in seen or seen[place].shape != maps.shape:
            raise ValueError(
                f"The maps of {place.layer} are of {tuple(maps.shape)}, and those of the first "
                "half are others: tell both captions of as many tokens, to one network."
            )
        found.append((maps - seen[place]).square().sum((2, 3)).mean(1))
    return torch.stack(found).sum(0)
