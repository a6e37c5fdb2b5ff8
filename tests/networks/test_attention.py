"""Attention: its equation, maps that are edited, tokens, rotary positions, norms of heads."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sdegen import EDMSDE, ScoreModel
from sdegen.networks import ADM, DiT, Place, Transformer, UNet
from sdegen.networks.attention import (
    NOTHING,
    Context,
    CrossAttention,
    PixelAttention,
    SelfAttention,
    attend,
    turned,
)
from sdegen.networks.patches import rotary
from sdegen.networks.transformer import HeadNorm
from tests.cases import awake, normal, refused

NETS: dict[str, Callable[..., nn.Module]] = {
    "unet": lambda **more: UNet(1, width=8, heads=2, **more),
    "adm": lambda **more: ADM(1, 8, (1, 2), 1, [1], head_width=8, **more),
    "dit": lambda **more: DiT(1, 16, 2, 2, **more),
    "transformer": lambda **more: Transformer(1, 16, 2, 2, **more),
}
nets = pytest.mark.parametrize("kind", list(NETS))
X, T = normal(3, 1, 4, 8), torch.tensor([-1.0, 0.3, 1.2], dtype=torch.float64)


def near(found: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_attention_is_softmax_attention() -> None:
    attention = awake(PixelAttention(8, heads=2))
    x = normal(3, 8, 2, 5)
    expected = x.clone()
    for i in range(3):  # written out: one sample, one head, one pair of pixels at a time
        q, k, v = attention.qkv(attention.norm(x)[i].flatten(1).T).T.reshape(3, 2, 4, 10)
        heads = [
            torch.stack(
                [v[n] @ ((k[n].T @ q[n][:, p]) / math.sqrt(4)).softmax(0) for p in range(10)], 1
            )
            for n in range(2)
        ]
        expected[i] += attention.leave(torch.cat(heads).T).T.reshape(8, 2, 5)
    near(attention(x), expected)


def test_cross_attention_is_softmax_over_the_tokens_that_are_kept() -> None:
    attention = awake(CrossAttention(8, 2, 6))
    x, tokens = normal(1, 5, 8), normal(1, 4, 6, seed=1)
    keep = torch.tensor([True, False, True, True])
    q = attention.query(x)[0].unflatten(1, (2, 4))
    k, v = attention.tell(tokens)[0][keep].unflatten(1, (2, 2, 4)).unbind(1)
    maps = (torch.einsum("phd,lhd->hpl", q, k) / 2).softmax(-1)
    expected = attention.leave(torch.einsum("hpl,lhd->phd", maps, v).flatten(1))
    near(attention(x, Context(tokens, keep[None, None, None]), (5,))[0], expected)
    assert not CrossAttention(8, 2, 6).float()(x.float(), Context(tokens.float()), (5,)).any()


def test_maps_in_float16_are_made_of_what_float16_can_hold() -> None:
    """A head of 64 numbers of 40 has products of 64 * 40^2 = 102,400 > 65,504; over 8 they fit."""
    q = torch.full((1, 1, 3, 64), 40.0, dtype=torch.float16)
    k = torch.cat([q[:, :, :2], -q], 2)
    v, seen = normal(1, 1, 5, 64).half(), list[Tensor]()
    found = attend(q, k, v, Place("", False, (3,)), edit=lambda m, place: seen.append(m) or m)
    assert torch.equal(seen[0], seen[0].new_tensor([0.5, 0.5, 0, 0, 0]).expand(1, 1, 3, 5))
    torch.testing.assert_close(found, v[:, :, :2].mean(2, keepdim=True).expand(1, 1, 3, 64))


@nets
@pytest.mark.parametrize("words", [0, 4])
def test_every_parameter_has_a_gradient_whatever_is_given(kind: str, words: int) -> None:
    """Processes that sum their gradients wait for those of every parameter, call after call."""
    torch.manual_seed(0)
    net = NETS[kind](token_width=6, words=words, classes=2, numbers=["w"], beside=1).double()
    tokens = torch.tensor([[1, 4], [2, 0], [3, 3]]) if words else normal(3, 2, 6)
    mask, y = torch.ones(3, 2, dtype=torch.bool), torch.tensor([0, 1, 2])
    for told in ({}, {"tokens": tokens}, {"tokens": tokens, "mask": mask}, {"y": y}, {"w": 1.0}):
        net.zero_grad()
        net(X, T, c=X, **told).square().mean().backward()
        assert not [name for name, p in net.named_parameters() if p.grad is None]


@nets
def test_an_edit_sees_the_maps_and_what_it_returns_is_used(kind: str) -> None:
    net, tokens = awake(NETS[kind](token_width=6)), normal(3, 5, 6)
    plain, seen = net(X, T, tokens=tokens), dict[Place, Tensor]()

    def watch(maps: Tensor, place: Place) -> Tensor:
        seen[place] = maps
        return maps

    near(net(X, T, tokens=tokens, edit=watch), plain, 1e-10)  # the fused kernel's numbers
    assert {place.cross for place in seen} == {True, False}
    for place, maps in seen.items():
        n = math.prod(place.space)
        assert net.get_submodule(place.layer).heads == maps.shape[1]
        assert maps.shape[2:] == (n, 5 + 1 if place.cross else n)
        assert not (place.cross and maps[..., 5].any())  # of "no tokens", where there are some
        near(maps.sum(-1), torch.ones_like(maps[..., 0]))
    # Nothing is registered: the next call is what it was, to the bit.
    assert torch.equal(net(X, T, tokens=tokens), plain)

    def first(maps: Tensor, place: Place) -> Tensor:
        return torch.zeros_like(maps).index_fill(3, torch.tensor(0), 1) if place.cross else maps

    # All eyes on the first token: as if there were no other.
    near(net(X, T, tokens=tokens, edit=first), net(X, T, tokens=tokens[:, :1]), 1e-10)
    with refused(r"the maps|returns maps of shape \(3, .*, 1\), expected \(3,"):
        net(X, T, tokens=tokens, edit=lambda maps, place: maps[..., :1])
    with refused("edit is a function of maps and their place, but it is 'all'"):
        net(X, T, edit="all")


@nets
def test_no_tokens_is_one_that_is_learned_and_that_nobody_else_sees(kind: str) -> None:
    net, tokens = awake(NETS[kind](token_width=6)), normal(3, 5, 6)
    all_, none = torch.ones(3, 5, dtype=torch.bool), torch.zeros(3, 5, dtype=torch.bool)
    nothing, whole = net(X, T), net(X, T, tokens=tokens)
    near(net(X, T, tokens=tokens, mask=none), nothing)
    near(net(X, T, tokens=tokens[:, :0]), nothing)
    near(net(X, T, tokens=tokens, mask=all_), whole)
    mixed = torch.stack([all_[0], none[0], all_[0]])
    near(net(X, T, tokens=tokens, mask=mixed)[1], nothing[1])
    near(net(X, T, tokens=tokens, mask=mixed)[[0, 2]], whole[[0, 2]])
    assert (whole - nothing).abs().max() > 1e-3
    with torch.no_grad():
        net.tokens.none.add_(1)
    near(net(X, T, tokens=tokens, mask=all_), whole)
    assert (net(X, T) - nothing).abs().max() > 1e-3


@nets
def test_tokens_that_are_masked_out_and_their_order_do_not_count(kind: str) -> None:
    net, tokens = awake(NETS[kind](token_width=6)), normal(3, 5, 6)
    mask = torch.tensor([[True, True, False, True, False]] * 3)
    found = net(X, T, tokens=tokens, mask=mask)
    near(net(X, T, tokens=tokens.masked_fill(~mask[..., None], 7.0), mask=mask), found)
    order = torch.tensor([4, 2, 0, 3, 1])
    near(net(X, T, tokens=tokens[:, order], mask=mask[:, order]), found)
    near(net(X, T, tokens=tokens[:, mask[0]]), found)


def test_words_are_looked_up_and_their_order_counts() -> None:
    net = awake(DiT(1, 16, 1, 2, token_width=6, words=4, length=3))
    words = torch.tensor([[1, 4, 0], [2, 0, 0], [0, 0, 0]])
    found = net(X, T, tokens=words)
    near(found[2], net(X, T)[2])  # no words
    near(found[0], net(X, T, tokens=words[:, :2])[0])  # 0 is none
    assert (net(X, T, tokens=words.flip(1)) - found).abs().amax((1, 2, 3))[:2].min() > 1e-3
    for wrong, said in (
        (words.float(), r"torch.float32 of shape \(3, 3\), expected torch.int64, numbers of"),
        (words[:2], r"of shape \(2, 3\), expected .* of \(3, m\)"),
        (words + 1, r"numbers outside 0 \.\. 4: 0 for none, then 4 words"),
        (words - 1, r"numbers outside 0 \.\. 4"),
        (torch.cat([words, words], 1), "more than length = 3: cut them"),
    ):
        with refused(said):
            net(X, T, tokens=wrong)


def test_a_model_is_given_tokens_by_name_and_cuts_them_with_the_batch() -> None:
    net = awake(DiT(1, 16, 1, 2, token_width=6))
    tokens, mask = (
        normal(3, 5, 6),
        torch.tensor([[True] * 5, [True, False] * 2 + [True], [False] * 5]),
    )
    model = ScoreModel(net, EDMSDE(), time="c_noise").given(
        tokens=tokens, mask=mask, edit=lambda maps, place: maps * (1 + place.cross)
    )
    whole = model(X, 1.0).x0
    near(model.take(torch.tensor([2, 1]))(X[[2, 1]], 1.0).x0, whole[[2, 1]])


def test_wrong_tokens_masks_and_heads_are_refused() -> None:
    net, tokens = NETS["dit"](token_width=6).double(), normal(3, 5, 6)
    bool_ = torch.ones(3, 5, dtype=torch.bool)
    for given, said in (
        ({"tokens": tokens[..., :5]}, r"\(3, 5, 5\), expected vectors of \(3, m, 6\)"),
        ({"tokens": tokens[:1]}, r"\(1, 5, 6\), expected vectors of \(3, m, 6\)"),
        ({"tokens": tokens[0]}, r"\(5, 6\), expected vectors"),
        ({"tokens": tokens.long()}, "torch.int64 of shape .* expected vectors"),
        ({"tokens": tokens.repeat(1, 16, 1)}, "which are more than length = 77"),
        ({"tokens": tokens, "mask": bool_[:, :4]}, r"\(3, 4\), expected torch.bool of \(3, 5\)"),
        ({"tokens": tokens, "mask": bool_.double()}, "mask is torch.float64"),
        ({"mask": bool_}, "mask was given, but no tokens"),
    ):
        with refused(said):
            net(X, T, **given)
    with refused("the network takes none: build it with token_width > 0"):
        NETS["dit"]().double()(X, T, tokens=tokens)
    with refused("words = 3 have vectors: say their token_width"):
        NETS["dit"](words=3)
    with refused("heads = 3 does not divide a level of 8 channels"):
        SelfAttention(8, 3)
    with refused("heads must be a whole number >= 1, but it is 0"):
        SelfAttention(8, 0)
    with refused("heads = 3 does not divide a level of 8 channels"):
        CrossAttention(8, 3, 4)


@pytest.mark.parametrize("dims", [1, 2])
def test_turning_keeps_norms_and_scores_know_differences_alone(dims: int) -> None:
    like, head = torch.zeros((), dtype=torch.float64), 8
    grid = (5, 4)[:dims]
    turn = rotary(tuple(side + 3 for side in grid), head, 100.0, like)
    q, k = normal(1, 2, math.prod(side + 3 for side in grid), head), normal(1, head, seed=1)
    near(turned(q, turn).norm(dim=-1), q.norm(dim=-1), 1e-6)
    scores = turned(k.expand_as(q[0, 0]), turn) @ turned(q[0, 0, :1].expand_as(q[0, 0]), turn).T
    table = scores.unflatten(1, [side + 3 for side in grid]).unflatten(0, [s + 3 for s in grid])
    here = table[tuple([slice(0, -3)] * (2 * dims))]
    there = table[tuple([slice(3, None)] * (2 * dims))]  # both shifted by 3 along each axis
    near(there, here, 1e-6)
    assert (table[(slice(0, -3),) * dims + (slice(3, None),) * dims] - here).abs().max() > 0.1


def test_normed_queries_and_keys_do_not_know_their_weights_scale() -> None:
    attention = awake(SelfAttention(16, 2, bias=False, head_norm=HeadNorm))
    x = 10 * normal(2, 6, 16)  # far above the norm's eps
    found = attention(x, NOTHING, (6,))
    with torch.no_grad():
        attention.qkv.weight[:32] *= 10
    near(attention(x, NOTHING, (6,)), found, 1e-6)
    plain = awake(SelfAttention(16, 2, bias=False))
    before = plain(x, NOTHING, (6,))
    with torch.no_grad():
        plain.qkv.weight[:32] *= 10
    assert (plain(x, NOTHING, (6,)) - before).abs().max() > 0.1
