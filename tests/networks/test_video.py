"""Image networks over clips: as images at first, frames of each other afterwards."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.networks import ADM, MLP, Conditioned, DiT, Transformer, UNet, Video
from sdegen.networks import temporal as of_time
from sdegen.networks.attention import Clip, Context
from sdegen.networks.temporal import TemporalAttention
from tests.cases import awake, normal, refused

Make = Callable[..., Conditioned]
NETS: dict[str, Make] = {
    "unet": partial(UNet, width=12, heads=2),
    "adm": partial(ADM, width=8, mults=(1, 2), blocks=1, attention=(1,), head_width=8),
    "dit": partial(DiT, width=16, depth=2, heads=2),
    "transformer": partial(Transformer, width=16, depth=2, heads=2),
}
kinds = pytest.mark.parametrize("make", NETS.values(), ids=NETS)
X, T = normal(2, 1, 5, 8, 4), torch.tensor([0.3, -0.7], dtype=torch.float64)
NONE, ALL = torch.zeros(2, 5, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)


def images_of(net: nn.Module, x: Tensor, t: Tensor, **told: Any) -> Tensor:
    """An image network on every frame by itself."""
    b, _, f = x.shape[:3]
    every = {k: v.repeat_interleave(f, 0) if isinstance(v, Tensor) else v for k, v in told.items()}
    flat = x.transpose(1, 2).flatten(0, 1)
    out: Tensor = net(flat, t.repeat_interleave(f), **every)
    return out.unflatten(0, (b, f)).transpose(1, 2)


def over_time(video: Video) -> dict[str, nn.Parameter]:
    return {name: p for name, p in video.named_parameters() if ".temporal." in name}


@kinds
def test_a_clip_is_its_frames_at_first_to_the_bit(make: Make) -> None:
    net = awake(make(1))
    alone = copy.deepcopy(net)
    video = Video(net)
    assert len(over_time(video)) > 4
    assert torch.equal(video(X, T), images_of(alone, X, T))
    assert torch.equal(video(X[:, :, :1], T), images_of(alone, X[:, :, :1], T))  # one frame


def test_what_a_clip_is_told_is_told_to_every_frame() -> None:
    net = awake(UNet(1, 12, heads=2, classes=3, beside=2, numbers=["w"], token_width=6))
    alone = copy.deepcopy(net)
    told: dict[str, Any] = {"y": torch.tensor([2, 0]), "tokens": normal(2, 3, 6), "w": T + 1}
    c = normal(2, 2, 5, 8, 4, seed=3)
    flat = c.transpose(1, 2).flatten(0, 1)
    every = {k: v.repeat_interleave(5, 0) for k, v in told.items()}
    x = X.transpose(1, 2).flatten(0, 1)
    wanted = alone(x, T.repeat_interleave(5), c=flat, **every)
    found = Video(net)(X, T, c=c, **told)
    assert torch.equal(found.transpose(1, 2).flatten(0, 1), wanted)


@kinds
def test_weights_of_images_load_and_stay(make: Make) -> None:
    torch.manual_seed(0)
    trained, video = awake(make(1)), Video(make(1).double())
    missing, unexpected = video.net.load_state_dict(trained.state_dict(), strict=False)
    assert not unexpected and missing and all(".temporal." in name for name in missing)
    assert torch.equal(video.eval()(X, T), images_of(trained, X, T))


@kinds
def test_frames_that_are_images_know_nothing_of_time(make: Make) -> None:
    video = awake(Video(make(1)))
    alone = copy.deepcopy(video.net)
    out = video(X, T, images=ALL)
    assert torch.equal(out, images_of(alone, X, T))  # its blocks see no clip by themselves
    out.square().sum().backward()
    grads = {name: p.grad for name, p in over_time(video).items()}
    assert all(g is None or not g.any() for g in grads.values())
    video(X, T, images=NONE).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in over_time(video).values())


@kinds
def test_images_among_frames_neither_see_nor_are_seen(make: Make) -> None:
    video, mask = awake(Video(make(1))), NONE.clone()
    mask[0, 3:], mask[1, 0] = True, True
    out = video(X, T, images=mask)
    other = torch.where(mask[:, None, :, None, None], X + 1, X)
    frames = mask[:, None, :, None, None].expand(X.shape)
    assert torch.equal(video(other, T, images=mask)[~frames], out[~frames])
    moved = torch.where(frames, X, X + 1)
    assert torch.equal(video(moved, T, images=mask)[frames], out[frames])
    assert (video(X, T) - out).abs().amax((1, 3, 4)).min() > 1e-6  # without images all is seen


@kinds
def test_only_differences_of_time_count(make: Make) -> None:
    """Three frames of a clip with two images before them, or behind."""
    video, last = awake(Video(make(1))), torch.tensor([0, 0, 0, 1, 1]).bool()
    late, early = X.roll(2, 2), X
    a = video(early, T, images=last.expand(2, 5))[:, :, :3]
    b = video(late, T, images=last.roll(2).expand(2, 5))[:, :, 2:]
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)  # angles are of float32
    assert (a - video(early[:, :, :3], T)).abs().max() < 1e-12
    assert (a - images_of(video.net, early[:, :, :3], T)).abs().max() > 1e-3


@kinds
def test_time_may_run_back_where_frames_have_no_place(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = awake(Video(make(1)))
    there = video(X, T)
    assert (video(X.flip(2), T).flip(2) - there).abs().max() > 1e-5

    def still(grid: tuple[int, ...], head: int, base: float, like: Tensor) -> Tensor:
        one = like.new_ones(grid[0], head // 2)
        return torch.stack([one, 0 * one])

    monkeypatch.setattr(of_time, "rotary", still)
    torch.testing.assert_close(video(X.flip(2), T).flip(2), video(X, T), rtol=1e-9, atol=1e-9)


def test_attention_over_time_is_that_of_each_place() -> None:
    """Against torch's own attention, place by place, of a clip whose frames have one place."""
    layer = awake(TemporalAttention(4, 1))
    h = normal(3, 2, 4)  # three frames of one clip, two places
    turn = of_time.rotary((3,), 4, of_time.BASE, h)
    context = Context(clip=Clip(3))
    for place in range(2):
        q, k, v = layer.attention.qkv(layer.norm(h[:, place])).chunk(3, dim=1)
        q, k = (
            torch.cat([a * c - b * s, a * s + b * c], 1)
            for (a, b), (c, s) in [((each.chunk(2, 1)), turn.double()) for each in (q, k)]
        )
        seen = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        wanted = h[:, place] + layer.attention.leave(seen)
        torch.testing.assert_close(layer(h, context)[:, place], wanted)


def test_a_clip_does_not_depend_on_those_beside_it() -> None:
    video = awake(Video(UNet(1, 12, heads=2)))
    torch.testing.assert_close(video(X, T)[1:], video(X[1:], T[1:]), rtol=1e-12, atol=1e-12)


def test_it_learns_of_time_at_once_and_a_copy_is_one() -> None:
    torch.manual_seed(0)
    model = sg.ScoreModel(Video(awake(UNet(1, 12, heads=2))), sg.VPSDE(), "v")
    other, optimizer = copy.deepcopy(model), torch.optim.SGD(model.parameters(), lr=1.0)
    sg.dsm_loss(model, X).mean().backward()
    optimizer.step()
    assert model.net.net.middle.temporal.attention.leave.weight.any()
    assert not other.net.net.middle.temporal.attention.leave.weight.any()
    x = sg.sample(model, (2, 1, 7, 8, 4), nfe=3, seed=0)  # more frames than it has ever seen
    assert x.shape == (2, 1, 7, 8, 4) and x.isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda v: Video(MLP(2)), "net is a UNet, ADM, DiT or Transformer of images"),
        (lambda v: Video(UNet(1, 12, heads=2, dims=3)), "this is dims = 3"),
        (lambda v: Video(UNet(1, 12, heads=2), heads=5), "heads = 5 does not divide"),
        (lambda v: Video(UNet(1, 12, heads=2), heads=4), "3 wide, expected an even"),
        (lambda v: v(X[:, :, 0], T), r"expected clips \(b, 1, f, H, W\)"),
        (lambda v: v(X[:, :, :0], T), r"expected clips \(b, 1, f, H, W\)"),
        (lambda v: v(X[..., :3], T), "multiples of 2"),
        (lambda v: v(X, T[:1]), "t has 1 values for 2 clips"),
        (lambda v: v(X, T, images=NONE[:, :4]), r"torch.bool of \(2, 4\), expected torch.bool"),
        (lambda v: v(X, T, images=NONE.long()), r"torch.int64 of \(2, 5\), expected torch.bool"),
        (lambda v: v(X, T, images=True), "images is True, expected"),
        (lambda v: v(X, T, y=0), "has no classes"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: Callable[[Video], Any], said: str) -> None:
    with refused(said):
        wrong(Video(UNet(1, 12, heads=2).double()))


@kinds
def test_a_network_is_one_videos_alone(make: Make) -> None:
    """Another one would put new attention in the place of what was learned, without a word."""
    video = Video(make(1))
    kept = [each.temporal for each in video.net.modules() if isinstance(each, of_time.Framewise)]
    for again in (video.net, copy.deepcopy(video.net)):
        with refused("is part of a video's network already"):
            Video(again)
    now = [each.temporal for each in video.net.modules() if isinstance(each, of_time.Framewise)]
    assert all(a is b for a, b in zip(kept, now, strict=True))
    Video(make(1))(X.float(), T.float())


def test_clips_are_counted_in_clips() -> None:
    video = Video(UNet(1, 12, heads=2, classes=2)).double()
    for told in ({"t": T[0]}, {"y": torch.tensor(1)}):
        with refused(r"(t|y) is one value for 2 clips, expected \(2,\)"):
            video(X, **{"t": T, **told})
