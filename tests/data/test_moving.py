"""Digits that move: straight on, at mirrors back, with all of their ink."""

from __future__ import annotations

import pytest
import torch

from sdegen.data import digits, moving_digits
from sdegen.data.moving import SIDE, bounced, placed
from sdegen.metrics import acceleration, centroids
from tests.cases import close, normal, refused


def test_a_mirror_turns_back() -> None:
    where = torch.tensor([-1.0, 0.0, 2.5, 8.0, 9.0, 17.0, -17.0])
    assert bounced(where, 8).tolist() == [1.0, 0.0, 2.5, 8.0, 7.0, 1.0, 1.0]


def test_whole_places_are_copies_and_others_are_shared() -> None:
    ink = normal(1, 3, 3).abs()
    at = torch.tensor([[[1.0, 2.0], [1.5, 2.0], [0.0, 4.75]]], dtype=torch.float64)
    whole, half, edge = placed(ink, at, 8)[0]
    assert torch.equal(whole[1:4, 2:5], ink[0]) and whole.count_nonzero() == 9
    lower = torch.zeros(8, 8).double()
    lower[2:5, 2:5] = ink[0]
    close(half, (whole + lower) / 2)
    close(edge.sum(), ink.sum())


def test_clips_go_straight_on_but_for_mirrors() -> None:
    """With room for it nothing bounces in the first frames, and a second difference is 0."""
    data = moving_digits(n=60, frames=6, size=40, speed=0.9)
    assert data.shape == (1, 6, 40, 40) and data.x.min() >= -1 and data.x.max() <= 1
    ink = (data.x.double() + 1).sum((1, 3, 4)) / 2
    close(ink, ink[:, :1].expand_as(ink), rtol=1e-5)  # none is lost at a border
    speed = centroids(data.x).diff(dim=1).norm(dim=2)
    straight = centroids(data.x).diff(n=2, dim=1).norm(dim=2).amax(1) < 1e-4
    assert straight.float().mean() > 0.8
    assert speed[straight].min() > 0.3 - 1e-4 and speed.max() < 0.9 + 1e-4
    close(centroids(moving_digits(n=5, speed=0).x).diff(dim=1), torch.zeros(5, 7, 2), atol=1e-4)


def test_labels_are_of_the_digits_and_halves_share_none() -> None:
    train, test = moving_digits(n=40), moving_digits("test", n=40)
    for data, split in ((train, "train"), (test, "test")):
        known = digits(split)
        still = moving_digits(split, n=40, speed=0, size=SIDE + 1, frames=1)
        assert torch.equal(still.y, data.y)  # the draws of a seed are of all clips alike
        assert set(data.y.tolist()) <= set(known.y.tolist())
    assert train.classes == 10 and not torch.equal(train.y, test.y)
    assert torch.equal(train.x, moving_digits(n=40).x)
    assert not torch.equal(train.x, moving_digits(n=40, seed=1).x)


def test_neighbouring_frames_say_where_a_digit_is() -> None:
    x = moving_digits(n=500).x
    frames = x.transpose(1, 2).flatten(0, 1)
    mixed = frames[torch.randperm(len(frames), generator=torch.Generator().manual_seed(0))]
    apart = acceleration(mixed.unflatten(0, (-1, 8)).transpose(1, 2))
    assert acceleration(x) < apart / 10


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"split": "valid"}, "split = 'valid'"),
        ({"n": 0}, "n"),
        ({"frames": 0}, "frames"),
        ({"size": 8}, "size"),
        ({"speed": -1.0}, "speed"),
    ],
)
def test_what_is_no_clip_is_refused(wrong: dict[str, object], said: str) -> None:
    with refused(said):
        moving_digits(**wrong)  # type: ignore[arg-type]
