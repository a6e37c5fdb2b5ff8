"""Images behind the frames of clips, and frames that are hidden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.losses import Between, Extend, dropped, paired, with_images
from sdegen.networks import UNet, Video
from tests.cases import awake, close, normal, refused


class Told:
    """A model that remembers what it was given, and whose loss is what it saw."""

    def __init__(self, **told: Any) -> None:
        self.told = self.conditions = told

    def given(self, **told: Any) -> Told:
        return Told(**self.told, **told)


def look(model: Any, x0: Tensor) -> Any:
    return model.told["images"], x0


X0 = normal(3, 2, 4, 5, 6)


def test_images_are_frames_of_the_batch_behind_those_of_each_clip() -> None:
    draws = torch.Generator().manual_seed(0)
    mask, x = with_images(Told(), X0, images=50, loss=look, generator=draws)
    assert x.shape == (3, 2, 54, 5, 6) and torch.equal(x[:, :, :4], X0)
    assert torch.equal(mask, (torch.arange(54) >= 4).expand(3, 54))
    known = X0.transpose(1, 2).flatten(0, 1)
    more = x[:, :, 4:].transpose(1, 2).flatten(0, 1)
    same = (more[:, None] == known).flatten(2).all(2)
    assert same.sum(1).eq(1).all() and same.any(0).all()  # each is one of them, and all come
    again = torch.Generator().manual_seed(0)
    assert torch.equal(with_images(Told(), X0, images=50, loss=look, generator=again)[1], x)


def test_without_images_it_is_the_loss_itself() -> None:
    model = sg.ScoreModel(awake(Video(UNet(2, 8, heads=2))), sg.VPSDE(), "v")
    x0 = normal(3, 2, 4, 4, 4)

    def of(loss: Callable[..., Tensor], **how: Any) -> Tensor:
        torch.manual_seed(0)
        return loss(model, x0, **how)

    apart = torch.Generator().manual_seed(0)
    close(of(with_images, images=0, generator=apart), of(sg.dsm_loss))
    twice = of(with_images, images=2, generator=apart)
    assert twice.shape == (3,) and (twice - of(sg.dsm_loss)).abs().min() > 1e-6


def test_images_teach_the_image_network_alone() -> None:
    """Of clips of one frame that say so by themselves, with images behind: nothing of time."""
    model = sg.ScoreModel(awake(Video(UNet(2, 8, heads=2))), sg.VPSDE(), "v")
    alone = torch.ones(3, 4, dtype=torch.bool)
    sg.dsm_loss(model.given(images=alone), normal(3, 2, 4, 4, 4)).mean().backward()
    named = list(model.named_parameters())
    assert all(not p.grad.any() for n, p in named if ".temporal." in n and p.grad is not None)
    assert any(p.grad is not None and p.grad.any() for n, p in named if ".temporal." not in n)


def test_images_are_of_clips_that_are_told_the_same() -> None:
    """Clips whose pixels are their class, two of each: no image is of another."""
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    x0 = torch.arange(6.0).reshape(6, 1, 1, 1, 1).expand(6, 1, 3, 2, 2)
    for told in (
        {"y": y},
        {"y": y, "s": torch.tensor(1.0)},
        {"tokens": y[:, None, None].double()},
    ):
        _, x = with_images(Told(**told), x0, images=40, loss=look)
        assert torch.equal(x[:, 0, 3:, 0, 0].long() % 3, y[:, None].expand(6, 40))
        assert all(len(row.unique()) == 2 for row in x[:, 0, 3:, 0, 0])  # of both that are alike
    _, x = with_images(Told(y=y, mask=torch.eye(6).bool()), x0, images=4, loss=look)
    assert torch.equal(x[:, 0, 3:, 0, 0], torch.arange(6.0)[:, None].expand(6, 4))


def test_labels_go_with_the_clip() -> None:
    net = awake(Video(UNet(2, 8, heads=2, classes=3)))
    model = sg.ScoreModel(net, sg.VPSDE(), "v").given(y=torch.tensor([0, 1, 2]))

    def loss(model: Any, x0: Tensor) -> Tensor:
        return dropped(model, x0, loss=sg.dsm_loss, p=0.5, without={"y": 3})

    found = with_images(model, normal(3, 2, 4, 4, 4), images=1, loss=loss)
    assert found.shape == (3,) and found.isfinite().all()


@pytest.mark.parametrize(
    ("task", "known"),
    [
        (Extend(1), [1, 0, 0, 0]),
        (Extend(3), [1, 1, 1, 0]),
        (Between(2), [1, 0, 1, 0]),
        (Between(3), [1, 0, 0, 1]),
        (Between(9), [1, 0, 0, 0]),
    ],
)
def test_frames_are_seen_or_hidden(task: Any, known: list[int]) -> None:
    c, hole = task(X0, torch.Generator().manual_seed(5))
    frames = torch.tensor(known, dtype=torch.bool)
    assert hole.shape == (3, 1, 4, 5, 6)
    assert torch.equal(~hole, frames[:, None, None].expand_as(hole))
    seen = frames[:, None, None].expand_as(X0)
    assert torch.equal(c[seen], X0[seen]) and not (c == X0)[~seen].any()
    A = task.operator(X0, hole)
    assert torch.equal(A(X0), torch.where(seen, X0, 0)) and torch.equal(A.pinv(A(X0)), A(X0))
    assert task.beside(2) == 2


def test_a_network_is_trained_for_what_is_hidden() -> None:
    model = sg.ScoreModel(awake(Video(UNet(1, 8, heads=2, beside=1))), sg.VPSDE(), "v")
    loss = paired(model, normal(2, 1, 4, 4, 4), degrade=Extend(2))
    assert loss.shape == (2,) and loss.isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: with_images(Told(), X0[0], images=1, loss=look), "with_images is of clips"),
        (lambda: with_images(Told(), X0, images=-1, loss=look), "images"),
        (lambda: with_images(Told(c=X0), X0, images=1, loss=look), "nothing to show beside"),
        (lambda: with_images(Told(), X0 * torch.nan, images=1, loss=look), "finite"),
        (lambda: Extend(0), "known"),
        (lambda: Extend(4)(X0), "leaves nothing of 4 frames"),
        (lambda: Extend(1)(X0[0]), "Extend is of clips"),
        (lambda: Between(1), "every"),
        (lambda: Between(2)(X0[:, :, :1]), "clips have one frame"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: Callable[[], Any], said: str) -> None:
    with refused(said):
        wrong()
