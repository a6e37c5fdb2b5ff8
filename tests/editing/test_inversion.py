"""Inversions lead back to where they came from, and pix2pix-zero descends where it says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.editing import (
    NullText,
    Paired,
    PromptToPrompt,
    as_vectors,
    changed_where,
    direct_inversion,
    edit_direction,
    null_text,
    pix2pix_zero,
    replacement,
    translate,
)
from sdegen.editing.prompt import Maps, keeping
from sdegen.guidance import CFG
from sdegen.networks import UNet
from sdegen.networks.tokens import Tokens
from sdegen.text import NO_TEXT
from tests.captioned import FROM, SDE, SHAPE, TO, WORDS, captioned, told
from tests.cases import Plain, close, normal, refused

MODEL = captioned("x0", data_range=(-4.0, 4.0))
SOURCE = told(MODEL, [FROM] * 2)
X = 0.5 * normal(2, *SHAPE)
SWAP = PromptToPrompt(replacement(FROM, TO), until_self=0.5)
HOW: dict[str, Any] = {"solver": sg.DDIM(), "steps": 4}


def pair(scale: float = 1.0, **how: Any) -> Paired:
    return Paired(told(MODEL, [FROM] * 2, scale), told(MODEL, [TO] * 2, scale), **how)


# ------------------------------------------------------------------------------------- directly


@pytest.mark.parametrize("solver", [sg.DDIM(), sg.Heun(), sg.UniPC(3), sg.DPMSolverPP(2)], ids=str)
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_direct_inversion_is_exact_for_any_scale(solver: sg.Solver, scale: float) -> None:
    how: dict[str, Any] = {"solver": solver, "steps": 4}
    kept, changed = direct_inversion(SOURCE, pair(scale, maps=SWAP), X, **how)
    close(kept, X, atol=1e-12, rtol=0)
    assert (changed - kept).abs().max() > 1e-3
    z = sg.encode(SOURCE, X, **how)
    lost, _ = translate(pair(scale).model, pair(scale).edited, X, **how)
    assert (lost - X).abs().max() > 1e-4  # what is corrected is not small
    # Without an edit of maps the second half knows nothing of the first.
    _, free = direct_inversion(SOURCE, pair(scale), X, **how)
    assert torch.equal(free, sg.decode(told(MODEL, [TO] * 2, scale), z, **how))


@pytest.mark.parametrize("solver", [sg.DDIM(), sg.UniPC(3)], ids=str)
def test_outside_a_mask_the_edit_is_the_data(solver: sg.Solver) -> None:
    """To the last bit; and pix2pix-zero moves nothing there."""
    mask = torch.zeros(1, *SHAPE, dtype=torch.bool)
    mask[..., : SHAPE[-1] // 2] = True
    out = ~mask.expand_as(X)
    how: dict[str, Any] = {"solver": solver, "steps": 4}
    kept, changed = direct_inversion(SOURCE, pair(5.0, mask=mask), X, **how)
    assert torch.equal(changed[out], kept[out]) and not torch.equal(changed[~out], kept[~out])
    one, two = pix2pix_zero(pair(mask=mask), X, strength=10.0, **how)
    assert torch.equal(one[out], two[out]) and not torch.equal(one[~out], two[~out])


def test_a_sample_is_inverted_alone_as_in_a_batch() -> None:
    one = torch.tensor([1])
    _, whole = direct_inversion(SOURCE, pair(3.0, maps=SWAP), X, **HOW)
    _, alone = direct_inversion(SOURCE.take(one), pair(3.0, maps=SWAP).take(one), X[one], **HOW)
    close(alone, whole[one], rtol=1e-8, atol=1e-9)
    with torch.inference_mode():
        assert torch.equal(direct_inversion(SOURCE, pair(3.0, maps=SWAP), X, **HOW)[1], whole)


# -------------------------------------------------------------------------------------- DiffEdit


@pytest.mark.parametrize("solver", [sg.DDIM(), sg.UniPC(3)], ids=str)
def test_no_mask_is_the_edit_and_an_empty_one_what_came_back(solver: sg.Solver) -> None:
    how: dict[str, Any] = {"solver": solver, "steps": 4}
    edited, shape = told(MODEL, [TO] * 2, 2.0), (2, 1, *SHAPE[1:])
    kept, changed = translate(SOURCE, edited, X, mask=torch.zeros(shape, dtype=torch.bool), **how)
    z = sg.encode(SOURCE, X, **how)
    assert torch.equal(changed, kept) and torch.equal(kept, sg.decode(SOURCE, z, **how))
    _, changed = translate(SOURCE, edited, X, mask=torch.ones(shape, dtype=torch.bool), **how)
    assert torch.equal(changed, sg.decode(edited, z, **how))
    mask = changed_where(SOURCE, edited, X, t=0.5, draws=2)
    kept, changed = translate(SOURCE, edited, X, mask=mask, **how)
    assert mask.shape == shape and bool(mask.any()) and not bool(mask.all())
    assert torch.equal(kept[~mask], changed[~mask]) and not torch.equal(kept, changed)


# -------------------------------------------------------------------------------------- the null


def test_vectors_are_the_words() -> None:
    seen, level = as_vectors(SOURCE), SDE(0.5)
    assert seen.conditions["tokens"].is_floating_point()
    close(seen.output(X, level), SOURCE.output(X, level), rtol=1e-12, atol=1e-13)
    assert as_vectors(seen) is seen
    bare = MODEL.given(tokens=WORDS([FROM] * 2)["tokens"])
    close(as_vectors(bare).output(X, level), SOURCE.output(X, level), rtol=1e-12, atol=1e-13)


def test_the_first_null_is_no_text_and_scale_one_is_the_caption() -> None:
    found = null_text(SOURCE, X, 3.0, steps=3, iterations=0)
    guided, level = CFG(SOURCE, 3.0, NO_TEXT), SDE(0.4)
    close(found.output(X, level), guided.output(X, level), rtol=1e-10, atol=1e-11)
    one = null_text(SOURCE, X, 1.0, steps=3)
    assert torch.equal(one.nulls, found.nulls)
    close(one.output(X, level), SOURCE.output(X, level), rtol=1e-12, atol=1e-12)
    assert one.cost == 1 and found.cost == 2


class Shifted(torch.nn.Module):
    """x0 = x / 2 + the mean of its tokens: any state is within reach of a null."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = Tokens(2)

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        seen = self.tokens(len(x), tokens, mask, None)
        keep = seen.keep[:, 0, 0, :, None].double()
        return x / 2 + (seen.tokens * keep).sum(1) / keep.sum(1)


def test_fitted_nulls_lead_back_and_each_samples_is_its_own() -> None:
    given = {"tokens": normal(2, 3, 2, seed=1), "mask": torch.ones(2, 3, dtype=torch.bool)}
    one = sg.ScoreModel(Shifted().double(), SDE, "x0").given(**given)
    x, how = normal(2, 2), {"steps": 3, "iterations": 120, "rate": 0.3, "tolerance": 1e-8}
    found = null_text(one, x, 3.0, **how)  # type: ignore[arg-type]
    z = sg.encode(one, x, solver=sg.DDIM(), steps=3)

    def off(model: Any) -> float:
        back = sg.decode(model, z, solver=sg.DDIM(), walk=found.times)
        return float((back - x).abs().max())

    assert off(found) < 1e-2 and off(CFG(one, 3.0, NO_TEXT)) > 0.1 and off(one) > 0.1
    other = torch.tensor([1])
    alone = null_text(one.take(other), x[other], 3.0, **how)  # type: ignore[arg-type]
    close(alone.nulls, found.nulls[other], rtol=1e-9, atol=1e-9)
    level = SDE(0.5)
    close(found.take(other).output(x[other], level), found.output(x, level)[other], atol=1e-12)
    few = {**how, "iterations": 3}
    with torch.inference_mode():
        within = null_text(one, x, 3.0, **few)  # type: ignore[arg-type]
    close(within.nulls, null_text(one, x, 3.0, **few).nulls)  # type: ignore[arg-type]
    rest = null_text(one, x, 3.0, **{**how, "tolerance": 1e9})  # type: ignore[arg-type]
    assert torch.equal(rest.nulls, null_text(one, x, 3.0, steps=3, iterations=0).nulls)


def test_a_null_of_another_caption_is_the_same_and_is_not_edited() -> None:
    times, scale = (1.0, 0.5, 1e-3), 2.0
    nulls = normal(2, 2, 5, 6, seed=3)
    model = NullText(SOURCE, scale, times, nulls)
    other = model.given(**WORDS([TO] * 2))
    assert isinstance(other, NullText) and torch.equal(other.nulls, nulls)
    seen = {"tokens": nulls[:, 1], "mask": torch.ones(2, 5, dtype=torch.bool)}
    null = MODEL.given(**seen).output(X, SDE(0.3))
    for edit in (None, SWAP):
        mixed = Paired(SOURCE, other, maps=edit).output(torch.stack([X, X], 1), SDE(0.3))[:, 1]
        plain = Paired(SOURCE, told(MODEL, [TO] * 2), maps=edit)
        F = plain.output(torch.stack([X, X], 1), SDE(0.3))[:, 1]
        close(mixed, null + scale * (F - null), rtol=1e-10, atol=1e-10)
    each = model.output(X, SDE(torch.tensor([0.8, 0.3], dtype=torch.float64)))
    close(each[1], model.output(X, SDE(0.3))[1], rtol=1e-10, atol=1e-10)
    close(each[0], model.output(X, SDE(0.8))[0], rtol=1e-10, atol=1e-10)


# ------------------------------------------------------------------------------------ pix2pix-zero


def maps_off(z: Tensor, t: float) -> Tensor:
    """sum |M(z) - M_ref|^2, the reference at X."""
    seen, made = Maps(), Maps()
    told(MODEL, [FROM] * 2).given(edit=keeping(seen)).output(X, SDE(t))
    told(MODEL, [TO] * 2).given(edit=keeping(made)).output(z, SDE(t))
    each = [(made[p] - seen[p]).square().sum((2, 3)).mean(1) for p in seen if p.cross]
    return torch.stack(each).sum(0)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_step_is_one_from_where_the_state_has_descended(scale: float) -> None:
    """The gradient by central differences; both halves of the guidance are at the new state."""
    walk, strength = torch.tensor([0.8, 0.4], dtype=torch.float64), 0.5
    kept, changed = pix2pix_zero(pair(scale), X, strength=strength, solver=sg.DDIM(), walk=walk)
    g, h = torch.zeros_like(X), 1e-5
    for k in range(16):
        e = h * torch.eye(16, dtype=torch.float64)[k].reshape(1, *SHAPE)
        g.flatten(1)[:, k] = (maps_off(X + e, 0.8) - maps_off(X - e, 0.8)) / (2 * h)
    assert g.abs().max() > 1e-3
    how: dict[str, Any] = {"solver": sg.DDIM(), "walk": walk}
    want = sg.decode(told(MODEL, [TO] * 2, scale), X - strength * g, **how)
    close(changed, want, rtol=1e-6, atol=1e-6)
    assert torch.equal(kept, sg.decode(told(MODEL, [FROM] * 2, scale), X, **how))


def test_nothing_to_descend_is_two_plain_decodings() -> None:
    z, how = normal(2, *SHAPE, seed=4), {"solver": sg.UniPC(3), "steps": 4}
    kept, changed = pix2pix_zero(pair(3.0), z, strength=0.0, **how)  # type: ignore[arg-type]
    assert torch.equal(changed, sg.decode(told(MODEL, [TO] * 2, 3.0), z, **how))  # type: ignore[arg-type]
    guided = told(MODEL, [FROM] * 2, 3.0)
    kept, changed = pix2pix_zero(Paired(guided, guided), z, **how)  # type: ignore[arg-type]
    assert torch.equal(kept, changed)
    assert torch.equal(kept, sg.decode(guided, z, **how))  # type: ignore[arg-type]
    before = MODEL.nfe, MODEL.vjps
    _, whole = pix2pix_zero(pair(), z, **HOW)
    assert MODEL.nfe - before[0] == 4 * 4 and MODEL.vjps - before[1] == 4
    one = torch.tensor([1])
    close(pix2pix_zero(pair().take(one), z[one], **HOW)[1], whole[one], rtol=1e-8, atol=1e-9)
    with torch.inference_mode():
        close(pix2pix_zero(pair(), z, **HOW)[1], whole)


def test_a_direction_is_the_mean_difference_of_captions() -> None:
    one, two = (MODEL.given(**WORDS([f"{c} one", f"{c} two now"])) for c in ("red", "blue"))
    d = edit_direction(one, two)
    table = MODEL.net.tokens.table.weight  # type: ignore[union-attr]
    known = {word: k + 1 for k, word in enumerate(WORDS.known["vocabulary"])}
    want = torch.zeros(5, 6, dtype=torch.float64)
    want[0] = table[known["blue"]] - table[known["red"]]  # type: ignore[index]
    close(d, want, atol=1e-12)
    moved = as_vectors(SOURCE)
    moved = moved.given(tokens=moved.conditions["tokens"] + torch.cat([0 * d[:1], d[:-1]]))
    close(moved.output(X, SDE(0.5)), told(MODEL, [TO] * 2).output(X, SDE(0.5)), atol=1e-10)


def test_what_cannot_be_inverted_is_refused() -> None:
    bare = sg.ScoreModel(UNet(1, width=8, heads=2).double(), SDE)
    with refused(r"direct_inversion takes a pair, Paired\(model, edited, ...\), but it is 3"):
        direct_inversion(SOURCE, 3, X, **HOW)  # type: ignore[arg-type]
    with refused("direct_inversion is of models on one SDE"):
        other = sg.ScoreModel(MODEL.net, sg.EDMSDE())
        direct_inversion(other, pair(), X, **HOW)
    guided = CFG(SOURCE, 3.0, without=NO_TEXT)
    with refused("direct_inversion encodes without guidance, but this model is guided with 3"):
        direct_inversion(guided, pair(), X, **HOW)
    with refused("null_text encodes without guidance"):
        null_text(guided, X, 3.0)  # type: ignore[arg-type]
    with refused("was told an edit of its own already"):
        Paired(SOURCE, SOURCE.given(edit=lambda maps, place: maps), maps=SWAP)
    with refused("words are finite"):
        PromptToPrompt(torch.full((1, 5, 5), torch.nan))
    with refused("words are finite"):
        PromptToPrompt(torch.zeros(1, 0, 0))
    with refused("but sample 0 reaches"):
        direct_inversion(SOURCE, pair(), 100 * X, **HOW)
    with refused("does not follow the probability flow"):
        direct_inversion(SOURCE, pair(), X, solver=sg.DDIM(1.0), steps=2)
    with refused(
        "Vectors of tokens are those of a network of sdegen.networks .* this one is UNet"
    ):
        null_text(bare, X, 3.0)
    with refused("The model was told no tokens"):
        null_text(MODEL, X, 3.0)
    with refused("iterations must be a whole number >= 0, but it is -1"):
        null_text(SOURCE, X, 3.0, iterations=-1)
    with refused("null_text needs alpha and sigma"):
        null_text(sg.ScoreModel(MODEL.net, Plain(), "score"), X, 3.0)
    with refused("There are 3 nulls of 1 steps"):
        NullText(SOURCE, 3.0, (1.0, 0.1), normal(2, 3, 5, 6))
    with refused("pix2pix_zero works with the maps of tokens, but the model was given none"):
        pix2pix_zero(Paired(bare, bare), X, **HOW)
    with refused("strength must be a number >= 0, but it is -1"):
        pix2pix_zero(pair(), X, strength=-1, **HOW)
    short = WORDS([TO] * 2)
    shorter = MODEL.given(**{name: value[:, :4] for name, value in short.items()})
    with refused("tell both captions of as many tokens"):
        pix2pix_zero(Paired(SOURCE, shorter), X, **HOW)
    with refused("A direction is of captions with as many tokens, but they are of 5 and 4"):
        edit_direction(SOURCE, shorter)
