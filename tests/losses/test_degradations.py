"""What spoils data: what is left of it, where nothing is, and which operator says the same."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from sdegen.data import from_uint8
from sdegen.losses import JPEG, Colorize, Degradation, Inpaint, Superresolve, Uncrop
from tests.cases import refused

X0 = torch.rand(6, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
EVERY: dict[str, Degradation] = {
    "colorize": Colorize(),
    "inpaint": Inpaint(0.5, "random"),
    "centre": Inpaint(0.25),
    "uncrop": Uncrop(0.25),
    "jpeg": JPEG(),
    "superresolve": Superresolve(2),
}


def drawn(task: Degradation, seed: int = 0) -> Any:
    return task(X0, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", EVERY)
def test_a_condition_has_the_shape_that_a_network_is_built_for(name: str) -> None:
    task = EVERY[name]
    c, hole = drawn(task)
    assert c.shape == (6, task.beside(3), 8, 12) and c.dtype == X0.dtype
    assert hole is None or (hole.shape == (6, 1, 8, 12) and hole.dtype == torch.bool)


@pytest.mark.parametrize("name", EVERY)
def test_draws_are_the_generators(name: str) -> None:
    """The same seed repeats them, as a run that goes on does, and torch's own is not touched."""
    task = EVERY[name]
    before = torch.get_rng_state()
    (c, hole), (again, same) = drawn(task), drawn(task)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(c, again) and (hole is None or torch.equal(hole, same))
    random = name not in ("colorize", "superresolve")
    assert torch.equal(c, drawn(task, 1).c) is not random
    torch.manual_seed(3)
    own = task(X0).c
    torch.manual_seed(3)
    assert torch.equal(own, task(X0).c)


@pytest.mark.parametrize("name", EVERY)
def test_what_is_seen_is_what_the_operator_says(name: str) -> None:
    """The condition is a function of A x0 alone: data that differ where A is blind look alike."""
    task = EVERY[name]
    c, hole = drawn(task)
    A = task.operator(X0, hole)
    if A is None:
        assert name == "jpeg"
        return
    blind = X0 - A.pinv(A(X0))
    assert blind.abs().max() > 0.1
    other = task(X0 + 3 * blind, torch.Generator().manual_seed(0))
    torch.testing.assert_close(other.c, c, rtol=0, atol=1e-5)


def test_a_hole_is_a_box_anywhere() -> None:
    """Sides of half the data's, every place about as often as another, noise inside."""
    x0 = torch.zeros(4000, 1, 4, 4)
    c, hole = Inpaint(0.5, "random")(x0, torch.Generator().manual_seed(0))
    assert hole is not None and (hole.sum((1, 2, 3)) == 4).all()
    rows, columns = hole.any(3).float().argmax(2), hole.any(2).float().argmax(2)
    places = torch.bincount((rows * 3 + columns).flatten(), minlength=9)
    expected = 4000 / 9
    assert float(((places - expected) ** 2 / expected).sum()) < 26  # chi^2 of 8, p = .001
    assert (c[~hole] == 0).all()
    noise = c[hole]
    assert abs(float(noise.mean())) < 4 / len(noise) ** 0.5
    assert abs(float(noise.var()) - 1) < 4 * (2 / len(noise)) ** 0.5
    middle = Inpaint(0.5)(x0[:1]).hole
    assert middle is not None and middle[0, 0, 1:3, 1:3].all()


def test_a_border_is_what_a_box_leaves() -> None:
    c, hole = drawn(Uncrop(0.25))
    assert (~hole[:, 0, 2:6, 3:9]).all() and int(hole[0].sum()) == 96 - 4 * 6
    assert torch.equal(c[:, :, 2:6, 3:9], X0[:, :, 2:6, 3:9])


def test_series_and_volumes_have_holes_too() -> None:
    for shape in ((2, 3, 8), (2, 1, 4, 4, 4)):
        hole = Inpaint(0.5)(torch.zeros(shape)).hole
        assert hole is not None and hole.float().mean() == 0.5 ** (len(shape) - 2)


def test_jpeg_of_one_colour_is_that_colour_and_of_less_quality_less() -> None:
    flat = from_uint8(torch.full((1, 1, 8, 8), 128, dtype=torch.uint8))
    assert (JPEG(5, 5)(flat).c - flat).abs().max() <= 2 / 127.5
    errors = [float((JPEG(q, q)(X0).c - X0).square().mean()) for q in (5, 50, 95)]
    assert errors[0] > 1.2 * errors[1] > 1.2 * errors[2]


def test_what_cannot_be_spoilt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    points, grey = torch.zeros(2, 2), torch.zeros(2, 1, 8, 8)
    for task in EVERY.values():
        with refused(r"is of (data|images) \(b, channels, .* \(2, 2\)"):
            task(points)
    with refused("the data are grey already"):
        Colorize()(grey)
    with refused("lies in .0, 1., but it is 1.5"):
        Inpaint(1.5)
    with refused("Unknown place of a hole 'left': it must be one of centre, random"):
        Inpaint(0.5, "left")
    with refused(r"A hole of 0.01 of \(8, 8\) has sides \(0, 0\)"):
        Inpaint(0.01)(grey)
    with refused("lies in .0, 0.5., but it is 0.5"):
        Uncrop(0.5)
    with refused(r"A border of 0.01 of \(8, 8\) is \(0, 0\) wide"):
        Uncrop(0.01)(grey)
    with refused("Superresolve's k must be a whole number >= 2, but it is 1"):
        Superresolve(1)
    with refused("takes sides that 3 divides, not 8 x 8"):
        Superresolve(3)(grey)
    with refused("JPEG's high must be a whole number from 30 to 95, but it is 20"):
        JPEG(30, 20)
    with refused(r"JPEG is of images of 1 or 3 channels, but data are \(2, 2, 8, 8\)"):
        JPEG()(torch.zeros(2, 2, 8, 8))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with refused("JPEG is coded by Pillow, which is not installed: pip install pillow"):
        JPEG()(grey)
