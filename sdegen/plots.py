"""Pictures of samples, trajectories and losses.

Every function writes one file, whole or not at all, and returns its path; the suffix of the path
is the format (.png, .pdf, .svg). Nothing here touches pyplot or its global state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sdegen.files import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

DPI = 144
MARGIN, GAP = 14, 4  # around a mosaic and between its cells, in pixels
CELL = 64  # an image of a mosaic is enlarged, by a whole number, to about so many pixels
TITLE, LABEL = 10.0, 8.0  # font sizes, in points
INK, GREY, FAINT, ACCENT = "#1f2933", "#7b8794", "#cbd2d9", "#2563a8"
PLAIN: dict[str, Any] = {"color": INK, "parse_math": False}  # a name may have a $
CHANNELS = (ACCENT, "#c2571a", "#3c8d40", "#8552a1", "#b3952a", "#5b6b7b")  # of series, in turn
SAMPLES, COLUMNS = 12, 12  # series, and columns of a table, that a picture has at most
WIDE, NARROW, HIGH = 300, 150, 130  # a panel, in pixels


def save_samples(
    x: Tensor,
    path: str | Path,
    title: str = "",
    columns: int | None = None,
    classes: Sequence[str] = (),
) -> Path:
    """Samples as a picture, in the way of their shape.

    Images x (B, C, H, W) in [-1, 1], C = 1 or 3, are a mosaic; points x (B, 2) a scatter; series
    x (B, C, L) a panel each, of the first 12, with a line for each channel; tables x (B, D) a
    histogram for each of their first 12 columns. ``columns`` is the width of the mosaic; by
    default it is about square.

    ``classes`` are the names of each sample's class: images then have a row for each of the first
    ten classes, points a colour, series their name.

    Raises ValueError for an x of another shape, an empty one, columns < 1, or other than B names.
    """
    kind = _kind(x)
    if len(classes) not in (0, len(x)):
        raise ValueError(f"{len(classes)} classes for {len(x)} samples, expected one of each.")
    if kind == "points":
        figure = _figure(504, 504)
        _scatter(figure.add_axes((0.1, 0.08, 0.85, 0.85)), x, ticks=True, classes=classes)
        figure.text(0.525, 0.965, title, size=TITLE, **PLAIN, ha="center", va="center")
        return _write(figure, path)
    if kind != "images":
        shown = x[:SAMPLES] if kind == "series" else x.T[:COLUMNS]
        names = [f"{'sample' if kind == 'series' else 'column'} {k}" for k in range(len(shown))]
        if kind == "series" and classes:
            names = list(classes[:SAMPLES])
        cells = list(zip(shown, names, strict=True))
        rows = [cells[k : k + 3] for k in range(0, len(cells), 3)]
        reach = _extent(shown, 1.0) if kind == "series" else None
        return _write(_small_panels(rows, title, WIDE, reach), path)
    columns = math.ceil(math.sqrt(len(x))) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns = {columns}, expected 1 or more.")
    if not classes:
        return _write(_mosaic(_grid(pixels(x), columns), title), path)
    import numpy as np

    named = list(dict.fromkeys(classes))[:10]
    picks = [[k for k, name in enumerate(classes) if name == each][:columns] for each in named]
    images = np.concatenate([_grid(pixels(x[some]), columns) for some in picks])
    return _write(_mosaic(images, title, names=named), path)


def save_trajectory(
    states: Tensor, labels: Sequence[str], path: str | Path, title: str = ""
) -> Path:
    """The K states (K, B, ...) of B samples on their way, from left to right.

    Images, (K, B, C, H, W): one column a state, one row a sample. Black and white are -1 and 1,
    or further apart where 1 % of a column's values lie beyond, as they do in noise.
    Points, (K, B, 2): one panel a state, as wide as its points, half the width written below.
    Series, (K, B, C, L), and tables, (K, B, D): one column a state, one row a sample or a column
    of the table, of the first three.

    Raises ValueError for states of another shape, or if there are not K labels.
    """
    if len(labels) != len(states) or len(states) == 0:
        raise ValueError(
            f"{len(labels)} labels for {len(states)} states, expected one label for each state, "
            "and one state at least."
        )
    kind = _kind(states[0])
    if kind == "points":
        return _write(_panels(states, labels, title), path)
    if kind != "images":
        each = states[:, :3] if kind == "series" else states.movedim(2, 1)[:, :3]
        rows = [list(zip(each[:, k], labels, strict=True)) for k in range(each.shape[1])]
        return _write(_small_panels(rows, title, NARROW), path)
    import numpy as np

    cells = np.stack([pixels(x / max(1.0, _extent(x, 0.99))) for x in states], axis=1)
    return _write(_mosaic(cells, title, labels), path)


def save_curve(
    steps: Sequence[float], values: Sequence[float], path: str | Path, ylabel: str, title: str = ""
) -> Path:
    """values against steps: the raw points faint, their running mean over about 5 % of them bold.

    The axis of values is logarithmic if they are positive and span more than a factor of ten.
    Values that are not finite are left out. Raises ValueError if the lengths differ or are zero.
    """
    import numpy as np

    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or len(x) == 0:
        raise ValueError(f"{len(x)} steps for {len(y)} values, expected one of each, or more.")
    figure = _figure(864, 504)
    axes = figure.add_axes((0.1, 0.13, 0.86, 0.76))
    _frame(axes, ("left", "bottom"))
    axes.grid(color=FAINT, linewidth=0.5, alpha=0.6)
    axes.plot(x, y, ".", markersize=4, markeredgewidth=0, color=ACCENT, alpha=0.4)
    axes.plot(x, _running_mean(y, max(2, len(y) // 40)), color=ACCENT, linewidth=1.6)
    seen = y[np.isfinite(y)]
    if len(seen) and seen.min() > 0 and seen.max() > 10 * seen.min():
        axes.set_yscale("log")
    axes.set_xlabel("step", size=LABEL, **PLAIN)
    axes.set_ylabel(ylabel, size=LABEL, **PLAIN)
    axes.set_title(title, size=TITLE, **PLAIN)
    return _write(figure, path)


def save_histogram(
    groups: Mapping[str, Sequence[float]], path: str | Path, xlabel: str, title: str = ""
) -> Path:
    """Named groups of values as histograms over one axis; values that are not finite left out.

    Raises ValueError where no value is finite.
    """
    import numpy as np

    known = {name: np.asarray(values, dtype=float) for name, values in groups.items()}
    known = {name: values[np.isfinite(values)] for name, values in known.items()}
    every = np.concatenate(list(known.values())) if known else np.zeros(0)
    if not len(every):
        raise ValueError("A histogram needs one finite value at least.")
    figure = _figure(864, 504)
    axes = figure.add_axes((0.1, 0.13, 0.86, 0.76))
    _frame(axes, ("left", "bottom"))
    edges = np.histogram_bin_edges(every, bins=min(60, max(10, len(every) // 15))).tolist()
    for values in known.values():
        axes.hist(values, bins=edges, alpha=0.6)
    if len(known) > 1:
        _legend(axes, axes.containers, list(known))
    axes.set_xlabel(xlabel, size=LABEL, **PLAIN)
    axes.set_ylabel("samples", size=LABEL, **PLAIN)
    axes.set_title(title, size=TITLE, **PLAIN)
    return _write(figure, path)


def _write(figure: Figure, path: str | Path) -> Path:
    """Save the figure under a temporary name beside path, then move it there in one step."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as unfinished:
        figure.savefig(unfinished, format=path.suffix[1:] or "png", dpi=DPI)
    return path


def _figure(width: int, height: int) -> Figure:
    """An empty figure of so many pixels."""
    from matplotlib.figure import Figure

    return Figure((width / DPI, height / DPI), dpi=DPI, facecolor="white")


def _frame(axes: Axes, shown: Sequence[str]) -> None:
    for side, spine in axes.spines.items():
        spine.set_visible(side in shown)
        spine.set_color(FAINT)
    axes.tick_params(colors=GREY, labelsize=LABEL - 1, which="both", color=FAINT)


def _legend(axes: Axes, drawn: Sequence[Any], names: Sequence[str], **how: Any) -> None:
    """A legend of names as they are: matplotlib hides those that begin with _."""
    legend = axes.legend(drawn, ["name"] * len(names), frameon=False, **how)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False)


# ------------------------------------------------------------------------------------- points


def _kind(x: Tensor) -> str:
    """What samples are: points (B, 2), images, series or tables; ValueError if nothing of it."""
    if x.numel():
        if x.ndim == 2:
            return "points" if x.shape[1] == 2 else "table"
        if x.ndim == 3:
            return "series"
        if x.ndim == 4 and x.shape[1] in (1, 3):
            return "images"
    raise ValueError(
        f"samples of shape {tuple(x.shape)} cannot be drawn: expected images (B, C, H, W) with "
        "C = 1 or 3, series (B, C, L), points (B, 2) or tables (B, D), and one sample at least."
    )


def _extent(x: Tensor, quantile: float) -> float:
    """The quantile of |x| among its finite values; 1 if there are none."""
    import numpy as np

    size = np.abs(x.detach().double().cpu().numpy())
    size = size[np.isfinite(size)]
    return float(np.quantile(size, quantile)) if size.size else 1.0


def _scatter(axes: Axes, x: Tensor, ticks: bool, classes: Sequence[str] = ()) -> float:
    """Draw the points (B, 2) in a square around the origin, and return half its side; those of
    each class in a colour of its own."""
    import numpy as np

    half = 1.08 * _extent(x, 1.0) or 1.0
    points = x.detach().double().cpu().numpy()
    size = min(12.0, max(1.0, 6000 / len(points))) * (1.0 if ticks else 0.3)
    of = np.asarray(classes or [""] * len(points))
    names = list(dict.fromkeys(of.tolist()))
    for k, name in enumerate(names):
        colour, (h, v) = CHANNELS[k % len(CHANNELS)], points[of == name].T
        axes.scatter(h, v, s=size, color=colour, alpha=0.5, linewidths=0, rasterized=True)
    if 1 < len(names) <= len(CHANNELS):
        how = {"fontsize": LABEL, "loc": "upper right", "markerscale": 2}
        _legend(axes, axes.collections, names, **how)
    axes.set(xlim=(-half, half), ylim=(-half, half))
    _frame(axes, ("left", "right", "top", "bottom"))
    if not ticks:
        axes.set(xticks=[], yticks=[])
    return half


def _panels(states: Tensor, labels: Sequence[str], title: str) -> Figure:
    """One small scatter for each state (K, B, 2)."""
    side, head, foot = 190, (40 if title else 12) + 26, 30
    pitch = side + 3 * GAP
    row, height = len(states) * pitch - 3 * GAP, head + side + foot
    width = 2 * MARGIN + max(row, math.ceil(_text_width(title, TITLE)))
    figure = _figure(width, height)
    for k, (x, label) in enumerate(zip(states, labels, strict=True)):
        left = ((width - row) / 2 + k * pitch) / width
        axes = figure.add_axes((left, foot / height, side / width, side / height))
        half = _scatter(axes, x, ticks=False)
        size = LABEL * min(1.0, side / _text_width(label, LABEL))
        axes.set_title(label, size=size, **PLAIN, pad=5)
        axes.set_xlabel(f"± {half:.2g}", size=LABEL - 1, color=GREY, labelpad=3)
    figure.text(0.5, 1 - 22 / height, title, size=TITLE, **PLAIN, ha="center", va="center")
    return figure


# ------------------------------------------------------------------------------ series, tables


def _small_panels(
    rows: Sequence[Sequence[tuple[Tensor, str]]],
    title: str,
    wide: int,
    reach: float | None = None,
) -> Figure:
    """Panels in rows, with their names: a series (C, L) as lines, numbers (B,) as a histogram.

    ``reach`` is the height of all series alike; without it each has its own.
    """
    most, between, foot = max(map(len, rows)), 26, 26
    width = 2 * MARGIN + max(most * (wide + 44), math.ceil(_text_width(title, TITLE)))
    height = (40 if title else 12) + len(rows) * (HIGH + between + foot)
    figure = _figure(width, height)
    top = height - (40 if title else 12)
    for i, row in enumerate(rows):
        for j, (values, name) in enumerate(row):
            left = MARGIN + 40 + j * (wide + 44)
            low = top - (i + 1) * (HIGH + between + foot) + foot
            axes = figure.add_axes((left / width, low / height, wide / width, HIGH / height))
            _frame(axes, ("left", "bottom"))
            axes.set_title(name, size=LABEL, **PLAIN, pad=4)
            if values.ndim == 2:
                _lines(axes, values, reach or _extent(values, 1.0))
            else:
                _bars(axes, values)
    figure.text(0.5, 1 - 19 / height, title, size=TITLE, **PLAIN, ha="center", va="center")
    return figure


def _lines(axes: Axes, x: Tensor, reach: float) -> None:
    """A series (C, L), a line for each channel."""
    for k, channel in enumerate(x.detach().double().cpu().numpy()):
        axes.plot(channel, color=CHANNELS[k % len(CHANNELS)], linewidth=1.0)
    axes.set(xlim=(0, max(1, x.shape[1] - 1)), ylim=(-1.08 * reach, 1.08 * reach))


def _bars(axes: Axes, x: Tensor) -> None:
    """A histogram of the numbers (B,) that are finite."""
    import numpy as np

    values = x.detach().double().cpu().numpy()
    values = values[np.isfinite(values)]
    axes.hist(values, bins=min(60, max(10, len(values) // 15)), color=ACCENT)


# ------------------------------------------------------------------------------------- images


def pixels(x: Tensor) -> NDArray[Any]:
    """Images (B, C, H, W) in [-1, 1] as bytes (B, H, W, 3); what is no number becomes grey."""
    x = x.detach().float().nan_to_num(nan=0.0).clamp(-1, 1)
    x = ((x + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    return x.expand(*x.shape[:3], 3).cpu().numpy()


def _grid(images: NDArray[Any], columns: int) -> NDArray[Any]:
    """Images (B, H, W, 3) row by row: (rows, columns, H, W, 3), the cells left over white."""
    import numpy as np

    rows = math.ceil(len(images) / columns)
    cells = np.full((rows * columns, *images.shape[1:]), 255, dtype=np.uint8)
    cells[: len(images)] = images
    return cells.reshape(rows, columns, *images.shape[1:])


def _mosaic(
    cells: NDArray[Any], title: str, labels: Sequence[str] = (), names: Sequence[str] = ()
) -> Figure:
    """The cells (rows, columns, H, W, 3) with small gaps, each pixel a square of whole pixels;
    labels of columns above, names of rows to the left."""
    import numpy as np

    scale = max(1, round(CELL / max(cells.shape[2:4])))
    cells = cells.repeat(scale, axis=2).repeat(scale, axis=3)
    cells = np.pad(cells, ((0, 0), (0, 0), (GAP, 0), (GAP, 0), (0, 0)), constant_values=255)
    rows, columns, high, wide, _ = cells.shape
    picture = cells.swapaxes(1, 2).reshape(rows * high, columns * wide, 3)[GAP:, GAP:]

    side = math.ceil(max([_text_width(name, LABEL) + 2 * GAP for name in names], default=0))
    width = 2 * MARGIN + max(side + picture.shape[1], math.ceil(_text_width(title, TITLE)))
    head = (36 if title else MARGIN) + (24 if labels else 0)
    height = head + picture.shape[0] + MARGIN
    left = (width + side - picture.shape[1]) // 2
    figure = _figure(width, height)
    figure.figimage(picture, xo=left, yo=MARGIN, origin="upper")
    figure.text(0.5, 1 - 19 / height, title, size=TITLE, **PLAIN, ha="center", va="center")
    for k, name in enumerate(names):
        middle = 1 - (head + (k + 0.5) * high) / height
        at = (left - 2 * GAP) / width
        figure.text(at, middle, name, size=LABEL, **PLAIN, ha="right", va="center")
    room = 0.92 * (wide - GAP) / max([_text_width(label, LABEL) for label in labels], default=1.0)
    size = LABEL * min(1.0, room)
    for k, label in enumerate(labels):
        at = (left + k * wide + (wide - GAP) / 2) / width
        figure.text(at, 1 - (head - 8) / height, label, size=size, **PLAIN, ha="center")
    return figure


def _text_width(text: str, size: float) -> float:
    """How wide the text will be, in pixels; one at least."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(size=size)
    width, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return max(1.0, width * DPI / 72)


# -------------------------------------------------------------------------------------- curves


def _running_mean(y: NDArray[Any], reach: int) -> NDArray[Any]:
    """The mean of the finite values at most ``reach`` places away; NaN where there are none."""
    import numpy as np

    finite = np.isfinite(y)
    total = np.concatenate([[0.0], np.where(finite, y, 0.0).cumsum()])
    count = np.concatenate([[0], finite.cumsum()])
    place = np.arange(len(y))
    first, last = np.maximum(place - reach, 0), np.minimum(place + reach + 1, len(y))
    number = count[last] - count[first]
    mean: NDArray[Any] = np.where(
        number > 0, (total[last] - total[first]) / np.maximum(number, 1), np.nan
    )
    return mean
