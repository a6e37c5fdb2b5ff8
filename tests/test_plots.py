"""Pictures: what is in them, and that a file is whole or not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sdegen.plots import (
    GAP,
    MARGIN,
    _running_mean,
    _text_width,
    save_curve,
    save_histogram,
    save_samples,
    save_trajectory,
)
from tests.cases import ROOT
from tests.processes import python


def read(path: Path) -> Any:
    """The picture as bytes (H, W, 3)."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def tinted(picture: Any) -> Any:
    """Where the picture has a colour, (H, W): the data, and not the grey and black around it."""
    return np.ptp(picture.astype(int), axis=2) > 60


@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_of_a_mosaic_is_where_it_belongs(tmp_path: Path, channels: int) -> None:
    x = normal(5, channels, 8, 8).clamp(-1, 1)
    picture = read(save_samples(x, tmp_path / "x.png", columns=3))
    scale = 8  # 64 / 8
    cell = 8 * scale
    assert picture.shape == (2 * (cell + GAP) - GAP + 2 * MARGIN, 3 * (cell + GAP) - GAP + 28, 3)
    expected = ((x + 1) * 127.5).round().permute(0, 2, 3, 1).expand(5, 8, 8, 3).numpy()
    rest = np.ones(picture.shape[:2], dtype=bool)
    for i in range(5):
        top, left = (MARGIN + place * (cell + GAP) for place in divmod(i, 3))
        seen = picture[top : top + cell, left : left + cell]
        assert (seen == expected[i].repeat(scale, 0).repeat(scale, 1)).all()
        rest[top : top + cell, left : left + cell] = False
    assert (picture[rest] == 255).all()  # the gaps, the margin and the cell left over


def test_values_are_clipped_and_what_is_no_number_is_grey(tmp_path: Path) -> None:
    x = torch.tensor([-7.0, 7.0, torch.inf, -torch.inf, torch.nan]).view(5, 1, 1, 1)
    picture = read(save_samples(x.expand(5, 1, 8, 8), tmp_path / "x.png", columns=5))
    middle = [int(picture[MARGIN + 32, MARGIN + 32 + i * (64 + GAP), 0]) for i in range(5)]
    assert middle == [0, 255, 255, 0, 128]


def test_large_images_keep_their_size_and_a_title_finds_room(tmp_path: Path) -> None:
    plain = read(save_samples(torch.zeros(1, 3, 100, 120), tmp_path / "a.png"))
    assert plain.shape == (100 + 2 * MARGIN, 120 + 2 * MARGIN, 3)
    title = "a title that is much wider than the only picture below it"
    titled = read(save_samples(torch.zeros(1, 3, 100, 120), tmp_path / "b.png", title))
    assert titled.shape[0] > plain.shape[0] and titled.shape[1] > 3 * plain.shape[1]
    assert (titled[:, :MARGIN] == 255).all() and (titled[:, -MARGIN:] == 255).all()
    assert (titled[:MARGIN, MARGIN:-MARGIN] < 128).any()  # the title


def test_points_are_drawn_in_true_proportion(tmp_path: Path) -> None:
    """A circle stays a circle around the middle, and points that failed are left out."""
    angle = torch.linspace(0, 2 * torch.pi, 500)
    x = torch.stack([angle.cos(), angle.sin()], dim=1)
    x[0] = torch.nan
    rows, columns = np.nonzero(tinted(read(save_samples(x, tmp_path / "x.png", "circle"))))
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 2
    centre = ((rows.max() + rows.min()) / 2, (columns.max() + columns.min()) / 2)
    radius = np.hypot(rows - centre[0], columns - centre[1])
    assert radius.max() - radius.min() < 0.08 * radius.max() and radius.max() > 150


def test_each_column_of_a_trajectory_has_its_own_range(tmp_path: Path) -> None:
    x = normal(4, 1, 8, 8).clamp(-1, 1)
    states = torch.stack([50 * x, x, 0.5 * x])
    picture = read(save_trajectory(states, ["50", "1", "0.5"], tmp_path / "x.png"))
    bottom = picture.shape[0] - MARGIN
    for row in range(4):
        top = bottom - (4 - row) * (64 + GAP) + GAP
        cells = [
            picture[top : top + 64 : 8, MARGIN + k * 68 : MARGIN + k * 68 + 64 : 8, 0].astype(int)
            for k in range(3)
        ]
        exact = ((x[row, 0] + 1) * 127.5).round().numpy()
        assert (cells[1] == exact).all()
        assert abs(cells[0] - exact).max() <= 1  # large states shrink to the same range,
        assert abs(cells[2] - (exact + 127.5) / 2).max() <= 1  # small ones stay as they are
    assert (picture[: bottom - 4 * 68] < 128).any()  # the labels


def test_one_failed_value_does_not_dim_a_column(tmp_path: Path) -> None:
    x = torch.ones(3, 1, 8, 8)
    x[0, 0, 0, 0] = torch.nan
    x[1, 0, 0, 0] = 1000.0
    picture = read(save_trajectory(x[None], ["t"], tmp_path / "x.png"))
    assert picture[-MARGIN - 32, MARGIN + 32, 0] == 255


def test_points_of_a_trajectory_have_a_panel_each(tmp_path: Path) -> None:
    x = normal(300, 2)
    states = torch.stack([20 * x, x])
    picture = read(save_trajectory(states, ["noise", "data"], tmp_path / "x.png", "title"))
    left, right = (tinted(half) for half in np.array_split(picture, 2, axis=1))
    # The second state is the first in another unit, and so its panel is the same picture.
    assert left.sum() > 300 and abs(left.sum() - right.sum()) < 0.1 * left.sum()


def test_a_curve_is_drawn_and_keeps_out_what_is_no_number(tmp_path: Path) -> None:
    values = [10.0 ** (-i / 50) for i in range(200)]
    picture = tinted(read(save_curve(range(200), values, tmp_path / "a.png", "loss")))
    rows, columns = np.nonzero(picture)
    # Decades are straight on a logarithmic axis: the line has one slope from end to end.
    slope, offset = np.polyfit(columns, rows, 1)
    assert abs(rows - (slope * columns + offset)).max() < 6 and slope > 0.3

    holes = list(values)
    holes[50], holes[120] = float("nan"), float("inf")
    broken = tinted(read(save_curve(range(200), holes, tmp_path / "b.png", "loss")))
    assert (broken ^ picture).sum() < 0.1 * picture.sum()
    save_curve([0, 1], [float("nan")] * 2, tmp_path / "c.png", "loss")
    save_curve([0], [1.0], tmp_path / "d.png", "loss")


def test_a_curve_that_touches_zero_stays_linear(tmp_path: Path) -> None:
    values = [float(i) for i in range(200)]
    picture = tinted(read(save_curve(range(200), values, tmp_path / "a.png", "loss")))
    rows, columns = np.nonzero(picture)
    slope, offset = np.polyfit(columns, rows, 1)
    assert abs(rows - (slope * columns + offset)).max() < 10 and slope < -0.3


def test_running_mean() -> None:
    y = np.random.default_rng(0).normal(size=30)
    y[[4, 20]] = np.nan, np.inf
    for reach in (0, 3, 40):
        for i, mean in enumerate(_running_mean(y, reach)):
            near = y[max(0, i - reach) : i + reach + 1]
            near = near[np.isfinite(near)]
            assert mean == pytest.approx(near.mean()) if len(near) else np.isnan(mean)


def test_classes_have_rows_with_their_names(tmp_path: Path) -> None:
    """Three images of one class and one of another, as they come: two rows, the second filled up
    with white, and a name to the left of each."""
    x = torch.linspace(-1, 1, 4)[:, None, None, None].expand(4, 1, 8, 8)
    of = ["a", "a", "another class", "a"]
    picture = read(save_samples(x, tmp_path / "x.png", columns=3, classes=of))
    side = picture.shape[1] - MARGIN - 3 * 68 + GAP
    assert side > MARGIN + 60  # the longer name has room
    cells = [
        [picture[MARGIN + 32 + 68 * i, side + 32 + 68 * j, 0] for j in range(3)] for i in (0, 1)
    ]
    assert cells == [[0, 85, 255], [170, 255, 255]]
    for row in (0, 1):
        name = picture[MARGIN + 68 * row : MARGIN + 64 + 68 * row, : side - 1]
        assert (name < 128).any()
    with pytest.raises(ValueError, match="3 classes for 4 samples"):
        save_samples(x, tmp_path / "x.png", classes=of[:3])


def test_classes_of_points_have_colours(tmp_path: Path) -> None:
    x = torch.cat([normal(200, 2) - 4, normal(200, 2) + 4])
    picture = read(save_samples(x, tmp_path / "x.png", classes=["l"] * 200 + ["r"] * 200))
    red, blue = (picture[..., k].astype(int) for k in (0, 2))
    ours, theirs = np.nonzero(blue - red > 60)[1], np.nonzero(red - blue > 60)[1]
    middle = picture.shape[1] / 2
    assert (ours < middle).mean() > 0.95 and np.median(theirs) > middle


def panels_of(picture: Any, across: int, down: int) -> list[Any]:
    """A picture of small panels in so many equal parts, row by row, its title cut off."""
    rows = np.array_split(picture[40:], down)
    return [cell for row in rows for cell in np.array_split(row, across, axis=1)]


def test_series_are_lines_one_a_channel(tmp_path: Path) -> None:
    """A ramp and a constant: where the first is drawn rises along the panel, the second is level,
    and a sample without values has an empty panel."""
    x = torch.zeros(3, 2, 50)
    x[:, 0] = torch.linspace(-1, 1, 50)
    x[:, 1] = 0.5
    x[1] = torch.nan
    picture = read(save_samples(x, tmp_path / "x.png", "series")).astype(int)
    red, _, blue = (picture[..., k] for k in range(3))
    first, second = blue - red > 60, red - blue > 60
    for k, (ramp, level) in enumerate(
        zip(panels_of(first, 3, 1), panels_of(second, 3, 1), strict=True)
    ):
        if k == 1:
            assert not ramp.any() and not level.any()
            continue
        rows, columns = np.nonzero(ramp)
        slope, offset = np.polyfit(columns, rows, 1)
        assert slope < -0.2 and abs(rows - (slope * columns + offset)).max() < 4
        assert np.ptp(np.nonzero(level)[0]) <= 3
        # 0.5 is three quarters of the way up from -1 to 1.
        share = (rows.max() - np.nonzero(level)[0].mean()) / np.ptp(rows)
        assert share == pytest.approx(0.75, abs=0.03)


def test_tables_are_a_histogram_for_each_column(tmp_path: Path) -> None:
    """A column of two equal values has one bar, and one of two values as often two, of equal
    height; what is no number is left out."""
    x = torch.zeros(100, 3)
    x[:50, 1] = 1
    x[0, 2] = torch.inf
    picture = tinted(read(save_samples(x, tmp_path / "x.png", "table")))
    one, two, three = panels_of(picture, 3, 1)
    gaps = [np.diff(np.nonzero(each.any(0))[0]).max() for each in (one, two, three)]
    assert gaps[0] == 1 and gaps[1] > 50 and gaps[2] == 1
    heights = two.sum(0)[two.any(0)]
    assert np.ptp(heights) <= 2
    numbers = read(save_samples(normal(200, 1), tmp_path / "y.png"))
    assert tinted(numbers).any()


def test_series_and_tables_have_trajectories(tmp_path: Path) -> None:
    x = normal(5, 1, 20)
    states = torch.stack([9 * x, x])
    picture = tinted(read(save_trajectory(states, ["noise", "data"], tmp_path / "x.png", "t")))
    noise, data = panels_of(picture, 2, 1)
    # Each panel is as high as what it shows: the first is the second in another unit.
    assert noise.sum() > 500 and abs(noise.sum() - data.sum()) < 0.05 * data.sum()
    save_trajectory(torch.stack([normal(50, 1)] * 2), ["a", "b"], tmp_path / "y.png")


SAVE: dict[str, Callable[[Path], Path]] = {
    "images": lambda path: save_samples(normal(3, 1, 8, 8), path, "images"),
    "points": lambda path: save_samples(normal(9, 2), path, "points"),
    "series": lambda path: save_samples(normal(2, 2, 16), path, "series"),
    "table": lambda path: save_samples(normal(30, 1), path, "table"),
    "columns": lambda path: save_trajectory(normal(2, 3, 1, 8, 8), ["a", ""], path, "columns"),
    "panels": lambda path: save_trajectory(normal(2, 9, 2), ["a", ""], path, "panels"),
    "curve": lambda path: save_curve([1, 2, 3], [3.0, 2.0, 1.0], path, "loss", "curve"),
}


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
def test_one_whole_file_in_a_folder_made_for_it(
    tmp_path: Path, save: Callable[[Path], Path]
) -> None:
    path = tmp_path / "new" / "folder" / "x.png"
    assert save(path) == path and read(path).std() > 0
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("save", SAVE.values(), ids=SAVE)
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, save: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(figure: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half a pict")
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    path = tmp_path / "x.png"
    with pytest.raises(OSError, match="disk full"):
        save(path)
    assert list(tmp_path.iterdir()) == []
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        save(path)
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "old"


@pytest.mark.parametrize(("suffix", "start"), [(".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_the_suffix_is_the_format(tmp_path: Path, suffix: str, start: bytes) -> None:
    path = save_samples(normal(4, 3, 8, 8), tmp_path / f"x{suffix}", "title")
    assert path.read_bytes().startswith(start)


@pytest.mark.slow
def test_pyplot_and_the_random_state_are_left_alone(tmp_path: Path) -> None:
    program = f"""
import random, sys, numpy, torch
from sdegen.plots import save_curve, save_samples, save_trajectory

from tests.cases import ROOT
assert "matplotlib" not in sys.modules
states = random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()
save_samples(torch.zeros(2, 1, 8, 8), {str(tmp_path / "a.png")!r}, "title")
save_trajectory(torch.zeros(2, 3, 2), "ab", {str(tmp_path / "b.png")!r})
save_curve([0, 1], [1.0, 2.0], {str(tmp_path / "c.png")!r}, "loss")
assert "matplotlib.pyplot" not in sys.modules
after = random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist()
assert after == states
"""
    python("-W", "error", "-c", program, cwd=ROOT)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    "shape",
    [
        (3, 2, 8, 8),
        (0, 2),
        (0, 3),
        (3, 2, 0),
        (0, 1, 8, 8),
        (3, 1, 0, 8),
        (3, 1, 4, 4, 4),
        (2,),
        (),
    ],
)
def test_samples_that_cannot_be_drawn_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected images"):
        save_samples(torch.zeros(shape), tmp_path / "x.png")
    with pytest.raises(ValueError, match="expected images"):
        save_trajectory(torch.zeros(2, *shape), ["a", "b"], tmp_path / "x.png")


def test_wrong_numbers_of_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 labels for 3 states"):
        save_trajectory(torch.zeros(3, 4, 2), ["a", "b"], tmp_path / "x.png")
    with pytest.raises(ValueError, match="0 labels for 0 states"):
        save_trajectory(torch.zeros(0, 4, 2), [], tmp_path / "x.png")
    with pytest.raises(ValueError, match="columns = 0"):
        save_samples(torch.zeros(3, 1, 8, 8), tmp_path / "x.png", columns=0)
    with pytest.raises(ValueError, match="2 steps for 3 values"):
        save_curve([1, 2], [1.0, 2.0, 3.0], tmp_path / "x.png", "loss")
    with pytest.raises(ValueError, match="0 steps for 0 values"):
        save_curve([], [], tmp_path / "x.png", "loss")
    assert list(tmp_path.iterdir()) == []


def texts_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What stands in the pictures that are written from here on, as it is to be read."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    seen: list[str] = []
    write = Figure.savefig

    def spied(self: Figure, *args: Any, **how: Any) -> None:
        for text in self.findobj(Text):
            assert isinstance(text, Text)
            if "$" not in text.get_text() or not text.get_parse_math():
                seen.append(text.get_text())
        write(self, *args, **how)

    monkeypatch.setattr(Figure, "savefig", spied)
    return seen


NAMES = ["$x_$", "_b", "a$b^$", "^\\frac"]
"""Of folders: what matplotlib takes for mathematics, wrong ones mostly, or hides."""


@pytest.mark.parametrize("shape", [(4, 1, 4, 4), (4, 2), (4, 1, 5), (4, 3)])
def test_names_and_titles_are_text_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    seen, x = texts_of(monkeypatch), normal(*shape)
    save_samples(x, tmp_path / "x.png", "$t_$", classes=NAMES)
    assert {"$t_$", *(NAMES if shape != (4, 3) else [])} <= set(seen)
    seen.clear()
    save_trajectory(x[:, None], NAMES, tmp_path / "t.png", "$t_$")
    assert {"$t_$", *NAMES} <= set(seen)


def test_curves_and_histograms_take_text_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = texts_of(monkeypatch)
    save_curve([1, 2, 3], [1.0, 10.0, 100.0], tmp_path / "c.png", "$y_$", "$t_$")
    assert {"$y_$", "$t_$"} <= set(seen) and not any("mathdefault" in text for text in seen)
    save_histogram({"$x_$": [1.0], "_b": [2.0]}, tmp_path / "h.png", "$u_$", "$v_$")
    assert {"$x_$", "_b", "$u_$", "$v_$"} <= set(seen)


def test_the_width_of_text_is_that_of_its_letters() -> None:
    """Mathematics would leave the dollars out, and cannot read the second at all."""
    assert _text_width("$xy$", 8.0) > _text_width("xy", 8.0) + 5
    assert _text_width("$x_$", 8.0) > 5 and _text_width(" ", 8.0) >= 1 == _text_width("", 8.0)
