"""Prompt-to-Prompt: edits that edit nothing are none, and what each map becomes is its formula."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.editing import (
    Alike,
    LocalBlend,
    Paired,
    PromptToPrompt,
    marking,
    refinement,
    replacement,
    reweighting,
)
from sdegen.editing.words import common
from sdegen.guidance import CFG, Contrast, Thresholded
from sdegen.networks import Place, UNet
from sdegen.networks.attention import attend
from sdegen.programs.remembered import programmed
from sdegen.text import NO_TEXT
from tests.captioned import FROM, SDE, SHAPE, TO, WORDS, captioned, told
from tests.cases import FIXED, Plain, close, normal, refused

MODEL = captioned()
X = normal(2, *SHAPE)
PAIR = torch.stack([X, X], 1)
SWAP = PromptToPrompt(replacement(FROM, TO), until_self=0.5)
BLEND = LocalBlend(marking(FROM, "red"), marking(TO, "blue"), threshold=0.97)
CROSS, SELF = Place("a", True, (2, 2)), Place("b", False, (2, 2))
HIGH, LOW = (SDE(torch.tensor(t, dtype=torch.float64)) for t in (0.8, 0.05))


def pair(two: str = TO, scale: float = 1.0, one: str = FROM, **how: Any) -> Paired:
    how.setdefault("maps", SWAP)
    return Paired(told(MODEL, [one] * 2, scale), told(MODEL, [two] * 2, scale), **how)


def drawn(model: Any, x: Tensor = PAIR, seed: Any = 0, **how: Any) -> Tensor:
    how = {"solver": sg.DPMSolverPP(2), "steps": 4, **how}
    return sg.sample(model, x, noise=Alike(sg.Seeded(seed)), **how)


def plain(caption: str, scale: float = 1.0, **how: Any) -> Tensor:
    how = {"solver": sg.DPMSolverPP(2), "steps": 4, **how}
    return sg.sample(told(MODEL, [caption] * 2, scale), X, seed=0, **how)


HOWS: list[dict[str, Any]] = [
    {"solver": sg.UniPC(3)},
    {"solver": sg.Heun()},
    {"solver": sg.DDIM(), "eta": 0.0},
    {"solver": sg.DPMSolverPP(2), "eta": 1.0},
]
hows = pytest.mark.parametrize("how", HOWS, ids=lambda how: str(how["solver"]))


@hows
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_identity_edit_is_two_plain_samples(how: dict[str, Any], scale: float) -> None:
    """To the bit, though the maps of the one are put in place of the other's."""
    maps = replace(SWAP, until_self=0.0, weights=torch.ones(1, 4))
    for edit in (maps, replace(maps, words=refinement(FROM, FROM))):
        x = drawn(pair(FROM, scale, maps=edit), **how)
        assert torch.equal(x[:, 0], plain(FROM, scale, **how))
        assert torch.equal(x[:, 1], x[:, 0])


@hows
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_never_is_two_plain_samples(how: dict[str, Any], scale: float) -> None:
    x = drawn(pair(TO, scale, maps=replace(SWAP, until=None, until_self=None)), **how)
    assert torch.equal(x[:, 0], plain(FROM, scale, **how))
    assert torch.equal(x[:, 1], plain(TO, scale, **how))
    beyond = drawn(pair(TO, scale, maps=replace(SWAP, until=1e9, until_self=1e9)), **how)
    assert torch.equal(beyond, x)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("mask", [None, BLEND], ids=["everywhere", "blend"])
def test_the_edit_leaves_the_source_as_it_is_and_edits(scale: float, mask: Any) -> None:
    x = drawn(pair(TO, scale, mask=mask))
    assert torch.equal(x[:, 0], plain(FROM, scale))
    for other in (plain(FROM, scale), plain(TO, scale), drawn(pair(TO, scale, maps=None))[:, 1]):
        assert (x[:, 1] - other).abs().max() > 1e-6


@pytest.mark.parametrize("name", FIXED)
def test_every_solver_keeps_the_source_and_edits(name: str) -> None:
    solver = FIXED[name]
    noise = Alike(sg.Brownian(0) if solver.traits.needs_path else sg.Seeded(0))
    same = pair(FROM, maps=replace(SWAP, until_self=0.0))
    x = sg.sample(same, PAIR, solver=solver, noise=noise, steps=2)
    assert torch.equal(x[:, 0], x[:, 1])


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("mask", [None, BLEND], ids=["everywhere", "blend"])
def test_the_program_is_the_plain_loop(scale: float, mask: Any) -> None:
    model, times = pair(TO, scale, mask=mask), sg.walks.log_snr(SDE, 4)
    solver = sg.DPMSolverPP(2)
    equation = sg.Reverse(model, 0.5, Alike(sg.Seeded(0)))
    for state in sg.march(solver, equation, PAIR, sg.walks.levels(SDE, times)):  # noqa: B007
        pass
    program = programmed(solver, model, 0.5, times)
    assert program is not None
    *_, end = (x.clone() for x in program.steps(model, PAIR, Alike(sg.Seeded(0))))
    close(end, state.x, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_pair_is_its_own(scale: float) -> None:
    """Alone as in a batch, with words, weights and marks of its own; a NaN stays where it is."""
    several = [FROM, "large red one"]
    to = [TO, "large blue one now"]
    W = torch.stack([torch.eye(4), torch.eye(4)])
    maps = PromptToPrompt(W, torch.tensor([[1.0, 2, 1, 1], [1, 1, 0.5, 1]]), 0.1, 0.3)
    words = torch.tensor([[False, True, False, False], [True, False, False, False]])
    blend = LocalBlend(words, words, threshold=0.9)
    model = Paired(told(MODEL, several, scale), told(MODEL, to, scale), maps=maps, mask=blend)
    whole = drawn(model, seed=[3, 4])
    for i in range(2):
        one = torch.tensor([i])
        close(drawn(model.take(one), PAIR[one], [3 + i]), whole[one], rtol=1e-9, atol=1e-10)
    sick = PAIR.clone()
    sick[0] = torch.nan
    close(drawn(model, sick, [3, 4])[1], whole[1])
    with torch.inference_mode():
        assert torch.equal(drawn(model, seed=[3, 4]), whole)


def test_an_adaptive_solver_cuts_it_and_mixes_by_each_samples_level() -> None:
    model, solver = pair(mask=BLEND), sg.AdaptiveRK("bosh3", rtol=0.3, atol=0.3, per_sample=True)
    whole = sg.sample(model, PAIR, solver=solver)
    one = torch.tensor([1])
    close(sg.sample(model.take(one), PAIR[one], solver=solver), whole[one], atol=1e-8, rtol=1e-8)


def test_maps_are_what_the_formula_says() -> None:
    """Written out, entry by entry."""
    M, N = (normal(2, 3, 4, 6, seed=seed).softmax(-1) for seed in (1, 2))
    W = torch.tensor([[0, 0.5, 0], [1, 0.5, 0]]).double()[None]
    c = torch.tensor([[1.0, 3.0, 0.2]])
    found = PromptToPrompt(W, c)(M, N, CROSS, HIGH)
    close(found[..., 0], M[..., 1])
    close(found[..., 1], 3 * (0.5 * M[..., 0] + 0.5 * M[..., 1]))
    close(found[..., 2], c[0, 2].double() * N[..., 2])
    assert torch.equal(found[..., 3:], N[..., 3:])
    edit = PromptToPrompt(W, c, until=1.0, until_self=1.0, most=4)
    places = Place("c", False, (2, 3))
    assert edit(M, N, CROSS, LOW) is N and edit(M, N, SELF, LOW) is N
    assert edit(M, N, SELF, HIGH) is M and edit(M, N, places, HIGH) is N
    both = SDE(torch.tensor([0.8, 0.05], dtype=torch.float64))
    close(edit(M, N, CROSS, both), torch.stack([edit(M, N, CROSS, HIGH)[0], N[1]]))


def test_refining_nothing_is_replacing() -> None:
    a, b = (drawn(pair(FROM, maps=PromptToPrompt(W(FROM, FROM), torch.full((1, 4), 2.0))))
            for W in (replacement, refinement))  # fmt: skip
    assert torch.equal(a, b) and (a[:, 1] - a[:, 0]).abs().max() > 1e-6


def test_words_are_found() -> None:
    W = refinement("a small cat and a dog", "a cat and a small dog")
    kept = [(0, 0), (2, 1), (3, 2), (4, 3), (5, 5)]
    assert [tuple(each) for each in W[0].nonzero().tolist()] == kept
    assert torch.equal(replacement(FROM, TO)[0], torch.eye(4))
    W = refinement("red two", "small red two", before=1)
    want = torch.zeros(3, 4)
    want[0, 0] = want[1, 2] = want[2, 3] = 1
    assert torch.equal(W[0], want)
    c = reweighting("a red, a blue", {"A": 2.0, "blue": 0.0}, before=1)
    assert c.tolist() == [[1, 2, 1, 2, 0]]
    assert marking("a red, a blue", "red blue").tolist() == [[False, True, False, True]]


def test_words_that_are_kept_are_as_many_as_can_be() -> None:
    """Beside every choice of words, of short captions with words that come again."""
    for k in range(20):
        letters = torch.randint(0, 3, (9,), generator=torch.Generator().manual_seed(k)).tolist()
        one, two = ([chr(97 + c) for c in some] for some in (letters[:5], letters[5:]))
        kept = common(one, two)
        assert all(one[i] == two[j] for i, j in kept)
        assert all(a < c and b < d for (a, b), (c, d) in pairwise(kept))
        some = {each for n in range(5) for each in combinations(one, n)}
        assert len(kept) == max(len(each) for each in some if each in set(
            each for n in range(5) for each in combinations(two, n)
        ))  # fmt: skip


def test_the_softmax_of_an_edit_is_the_fused_kernels() -> None:
    for dtype, off in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        q, k, v = (normal(2, 3, 5, 4, seed=seed).to(dtype) for seed in range(3))
        fused = attend(q, k, v, SELF)
        assert torch.equal(attend(q, k, v, SELF, edit=lambda maps, place: maps), fused)
        assert torch.equal(attend(q, k, v, SELF, edit=lambda maps, place: 1 * maps), fused)
        maps = (q @ k.mT / 2).softmax(-1)
        close(maps @ v, fused, rtol=0, atol=off)
        half = attend(q, k, v, SELF, edit=lambda maps, place: maps / 2)
        close(half, maps @ v / 2, rtol=0, atol=off)


def test_guidance_beside_the_caption_is_left_as_it_is() -> None:
    """F_u + s (F_c - F_u) of the edited F_c and the plain F_u, where no words are told."""
    model, s = pair(TO, 3.0), 3.0
    bare = MODEL.given(**WORDS([TO] * 2)).given(mask=torch.zeros(2, 5, dtype=torch.bool))
    alone = pair(TO).output(PAIR, HIGH)[:, 1]
    null = bare.output(X, HIGH)
    close(model.output(PAIR, HIGH)[:, 1], null + s * (alone - null))
    kept = Paired(told(MODEL, [FROM] * 2), told(MODEL, [TO] * 2, 3.0), maps=SWAP)
    close(kept.output(PAIR, HIGH)[:, 1], null + s * (alone - null))
    outer = Paired(told(MODEL, [FROM] * 2), Thresholded(told(MODEL, [TO] * 2), None, (-999, 999)),
                   maps=SWAP)  # fmt: skip
    close(outer.output(PAIR, HIGH)[:, 1], alone, rtol=1e-9, atol=1e-9)


def test_outside_a_blend_both_have_one_x0() -> None:
    """At states that differ too, for every prediction; and inside the edit's own."""
    other = torch.stack([X, X + normal(2, *SHAPE, seed=5)], 1)
    for predicts in ("eps", "x0", "v"):
        net = captioned(predicts)
        one, two = (told(net, [caption] * 2) for caption in (FROM, TO))
        model = Paired(one, two, maps=SWAP, mask=BLEND)
        level = SDE(torch.tensor(0.5, dtype=torch.float64))
        p = sg.model.predicted(SDE, model.target, other, model.output(other, level), level)
        free = Paired(one, two, maps=SWAP)(other, level).x0[:, 1]
        kept, edited = p.x0.unbind(1)
        same = (edited - kept).abs() < 1e-9
        inside = (edited - free).abs() < 1e-9
        assert bool((same ^ inside).all()) and bool(same.any()) and bool(inside.any())


def test_a_blend_is_where_the_words_are_looked_at() -> None:
    maps = torch.full((1, 2, 4, 3), 0.1, dtype=torch.float64)
    maps[0, :, 2, 1] = 0.9  # the third place looks at the second word
    seen, x = {CROSS: maps, SELF: maps[..., :1].expand(1, 2, 4, 4)}, torch.zeros(1, 3, 2, 2)
    blend = LocalBlend(marking("a b c", "b"), marking("a b c", "c"), threshold=0.5)
    assert blend(seen, {CROSS: 0 * maps}, x).tolist() == [[[[False, False], [True, False]]]]
    assert blend(seen, seen, x).all()  # all look at c alike
    large = LocalBlend(marking("a b c", "b"), marking("a b c", "b"), threshold=0.5)
    found = large(seen, seen, torch.zeros(1, 3, 8, 8))
    assert found[0, 0, 6:, :2].all() and not found[0, 0, :, 6:].any()


def test_it_costs_two_evaluations_and_tensors_are_its_own() -> None:
    model = pair(TO, 3.0, mask=BLEND)
    before = MODEL.nfe
    assert sg.solve(model, PAIR, nfe=8).nfe.tolist() == [8, 8] and MODEL.nfe == before + 8
    seen = list[Tensor]()
    model.with_values(lambda value: seen.append(value) or value)  # type: ignore[func-returns-value]
    assert sum(each.shape == (1, 4, 4) for each in seen) == 1
    assert sum(each.dtype is torch.bool and each.shape == (1, 4) for each in seen) == 2
    twice = model.with_values(lambda v: v / 2 if v.is_floating_point() else v)
    assert torch.equal(twice.maps.words, SWAP.words / 2)
    assert torch.equal(model.maps.words, SWAP.words)


def test_what_cannot_be_edited_is_refused() -> None:
    bare = sg.ScoreModel(UNet(1, width=8, heads=2).double(), SDE)
    with refused("works with the maps of tokens, but the model was given none"):
        Paired(bare, bare, maps=SWAP)
    with refused("but function takes no edit= of them"):
        net = sg.ScoreModel(lambda x, t, tokens: x, SDE).given(tokens=X)
        Paired(net, net, maps=SWAP)
    silent = sg.ScoreModel(lambda x, t, tokens, edit: x, SDE).given(tokens=X)
    with refused("made none that an edit reached"):
        Paired(silent, silent, maps=SWAP).output(PAIR, HIGH)
    one, two = told(MODEL, [FROM] * 2), told(MODEL, [TO] * 2)
    with refused("made none that an edit reached: .* together=False"):
        joined = CFG(two, 3.0, NO_TEXT, together=True)
        Paired(one, joined, maps=SWAP).output(PAIR, HIGH)
    with refused("made none that an edit reached"):
        Paired(one, Contrast([one, two], [2.0]), maps=SWAP).output(PAIR, HIGH)
    plain = sg.ScoreModel(MODEL.net, Plain(), "score").given(**WORDS([FROM] * 2))
    with refused("An edit of maps needs alpha and sigma"):
        Paired(plain, plain, maps=SWAP)
    with refused("maps is an edit of them, as PromptToPrompt, but it is 3"):
        Paired(one, two, maps=3)  # type: ignore[arg-type]
    with refused("words are of 9 and 9 tokens, but the maps of .* are of 6 and 6"):
        pair(maps=PromptToPrompt(torch.eye(9)[None])).output(PAIR, HIGH)
    with refused("9 words are marked, but the maps of .* are of 6 tokens"):
        pair(mask=LocalBlend(torch.ones(1, 9) > 0, BLEND.edited)).output(PAIR, HIGH)
    with refused("No map of cross-attention has at most 1 places"):
        pair(mask=replace(BLEND, most=1)).output(PAIR, HIGH)
    other = UNet(1, width=8, heads=1, token_width=6, words=WORDS.words, length=5).double()
    with refused("are those of two networks"):
        odd = sg.ScoreModel(other, SDE).given(**WORDS([FROM] * 2))
        Paired(odd, two, maps=SWAP).output(PAIR, HIGH)


def test_words_that_do_not_fit_are_refused() -> None:
    with refused("'a red one' has 3 words and 'one' has 1: .* refinement"):
        replacement("a red one", "one")
    with refused("No word of 'red' is in 'blue'"):
        refinement("red", "blue")
    with refused(r"The word 'bleu' is not in 'a blue one': did you mean blue\?"):
        reweighting("a blue one", {"bleu": 2.0})
    with refused("The word 'seven' is not in 'a blue one'."):
        marking("a blue one", "seven")
    with refused("A caption has words, but this one is '--'"):
        marking("--", "a")
    with refused("The weight of 'red' must be a number, but it is 'much'"):
        reweighting("red", {"red": "much"})  # type: ignore[dict-item]
    for wrong, message in (
        ({"words": torch.eye(2)}, r"words are floating-point \(1 or b, n, m\), but they are"),
        ({"words": torch.ones(1, 2, 2)}, "the largest sum is 2"),
        ({"weights": torch.ones(1, 3)}, r"weights are floating-point \(1 or b, 2\)"),
        ({"weights": torch.ones(2, 2)}, r"weights are floating-point \(1 or b, 2\)"),
        ({"until": -1.0}, "until must be a number >= 0, but it is -1"),
        ({"until": math.nan}, "until must be a number >= 0"),
        ({"most": 0}, "most must be a whole number >= 1"),
    ):
        with refused(message):
            PromptToPrompt(**{"words": torch.eye(2)[None], **wrong})  # type: ignore[arg-type]
    with refused("Words are marked by booleans"):
        LocalBlend(torch.ones(1, 2), torch.ones(1, 2))
    with refused("threshold lies in"):
        replace(BLEND, threshold=1.0)
