"""States and samples inside a page: points as small integers, images as sheets."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sdegen.plots import pixels
from sdegen.sampling.march import Solution, solve
from sdegen.sde.level import expand
from sdegen.sde.process import SDE, LinearSDE
from sdegen.solvers.solver import Solver

POINTS = 500
"""Points that are followed; of images as many as fit into ``ROOM``."""
MOST = 16
ROOM = 900_000
"""Bytes for all states of images, two solvers together, before they are packed."""
LARGE = 96
"""Images are shown no larger, in pixels; a larger one is shrunk."""
NOISY = 48
"""The side from which sheets are JPEGs: a PNG of noise is as large as its pixels."""


def viewable(shape: Sequence[int]) -> str:
    """What samples of a shape are to the page: "points", "images", or "" for others."""
    if list(shape) == [2]:
        return "points"
    return "images" if len(shape) == 3 and shape[0] in (1, 3) else ""


def followed(shape: Sequence[int], states: int) -> int:
    """How many samples are followed on their way through so many states."""
    if viewable(shape) == "points":
        return POINTS
    high, wide = (min(side, LARGE) for side in shape[1:])
    room = ROOM if max(high, wide) <= NOISY else 4 * ROOM
    return max(1, min(MOST, room // (states * 3 * high * wide)))


def ways(
    given: Any,
    shape: Sequence[int],
    solvers: Mapping[str, Solver],
    how: Mapping[str, Any],
) -> dict[str, Any]:
    """Samples of a shape (n, *) on their way, by each solver from the same starts, for the page.

    levels: of the walks together, from noise to data: t and, where the SDE has marginals, rho =
    sigma / alpha.  Of each solver ``at`` gives to every level the state it is at: the last one
    that is no nearer to the data.  States are shown in units of their own spread where it is
    above one, as VE's noise is.  groups: the class of every point, where there are some.  tile:
    width and height of an image.
    """
    made = {name: solve(given, shape, solver=s, path=True, **how) for name, s in solvers.items()}
    times = sorted({t for each in made.values() for t in times_of(each)}, reverse=True)
    kind = viewable(shape[1:])
    scaled = {name: unit(given.sde, each) for name, each in made.items()}
    half = max(extent(x) for x in scaled.values())
    shown = [
        {
            "name": name,
            "nfe": int(made[name].nfe.max()),
            "at": [last_above(times_of(made[name]), t) for t in times],
            "states": [integers(s, half) if kind == "points" else sheet(spread(s)) for s in x],
        }
        for name, x in scaled.items()
    ]
    y = given.conditions.get("y") if hasattr(given, "conditions") else None
    groups = [] if y is None or kind != "points" else y.tolist()
    label = [level_of(given.sde, t) for t in times]
    tile = [min(side, LARGE) for side in reversed(shape[2:])]
    return {"kind": kind, "levels": label, "half": half, "solvers": shown, "groups": groups,
            "tile": tile}  # fmt: skip


def times_of(solution: Solution) -> list[float]:
    """The times of a path's states."""
    assert solution.path is not None
    return [float(t) for t in solution.path.t]


def last_above(times: Sequence[float], t: float) -> int:
    """The last state at a time that is no earlier; the first where all are."""
    return max((i for i, each in enumerate(times) if each >= t), default=0)


def level_of(sde: SDE, t: float) -> dict[str, float]:
    """What the slider says of a time."""
    said = {"t": t}
    if isinstance(sde, LinearSDE):
        lam = float(sde.reference(torch.tensor(t, dtype=torch.float64)).lam)
        if math.isfinite(lam):
            said["rho"] = math.exp(-lam)
    return said


def unit(sde: SDE, solution: Solution) -> Tensor:
    """The states of a path (k, b, *), of variance about one at most."""
    assert solution.path is not None
    t, x = solution.path
    if isinstance(sde, LinearSDE):
        level = sde.reference(t.double().cpu())
        spread = (level.alpha**2 + level.sigma**2).sqrt().clamp(min=1.0)
        x = x / torch.as_tensor(expand(spread, x)).to(x)
    return x.float().cpu().nan_to_num(0.0, 0.0, 0.0)


def extent(x: Tensor) -> float:
    """How far samples lie from zero, but for a few."""
    flat = x.abs().flatten()
    k = max(1, math.ceil(0.999 * len(flat)))
    return 1.05 * float(flat.kthvalue(k).values) or 1.0


def spread(x: Tensor) -> Tensor:
    """Images whose black and white are -1 and 1, or further apart where 1 % of the values lie
    beyond, as they do in noise."""
    flat = x.abs().flatten()
    return x / max(1.0, float(flat.kthvalue(max(1, math.ceil(0.99 * len(flat)))).values))


def integers(x: Tensor, half: float) -> str:
    """Points (b, 2) in [-half, half] as little-endian 16-bit integers, base64."""
    whole = (x / half).clamp(-1, 1).mul(32767).round().short().numpy()
    return base64.b64encode(whole.astype("<i2").tobytes()).decode()


def sheet(x: Tensor, columns: int | None = None) -> str:
    """Images (b, c, h, w) in [-1, 1] side by side, about square, as an address that holds them."""
    from PIL import Image

    if max(x.shape[2:]) > LARGE:
        size = [min(side, LARGE) for side in x.shape[2:]]
        x = torch.nn.functional.interpolate(x, size, mode="area")
    b, _, h, w = x.shape
    columns = columns or math.ceil(math.sqrt(b))
    rows = math.ceil(b / columns)
    canvas = Image.new("RGB", (columns * w, rows * h), "white")
    for i, image in enumerate(pixels(x)):
        canvas.paste(Image.fromarray(image), (i % columns * w, i // columns * h))
    out = io.BytesIO()
    if max(h, w) > NOISY:
        canvas.save(out, "JPEG", quality=88, subsampling=0)
        return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
    canvas.save(out, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
