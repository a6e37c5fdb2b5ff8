"""Points of benchmarks that were made up, and folders of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sdegen.bench.point import VERSION


def written(folder: Path, **points: dict[str, Any]) -> Path:
    """A folder of points by name."""
    (folder / "points").mkdir(parents=True)
    for name, point in points.items():
        (folder / "points" / f"{name}.json").write_text(json.dumps(point))
    return folder


def point(library: str, solver: str, nfe: int, error: float, **more: Any) -> dict[str, Any]:
    """One that was made up."""
    settings = {"problem": "mixture", "sde": "vp", "solver": solver, "walk": "log_snr"}
    settings |= {"nfe": nfe, "dtype": "float64", **more.pop("settings", {})}
    made = {"version": VERSION, "library": library, "kind": "path", "settings": settings}
    errors = {name: error for name in ("rms", "median", "q90")}
    return {**made, "errors": errors, "nfe": nfe, "about": {}, "agreement": 0.0, **more}
