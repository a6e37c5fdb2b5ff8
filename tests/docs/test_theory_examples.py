"""The examples of compression and theory run, and say what they should."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.cases import ROOT


def example(name: str) -> ModuleType:
    """From its file."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(folder: Path) -> dict[str, dict[str, float]]:
    """Figures by what they are of; every one whole, and a picture beside them."""
    assert (folder / "picture.png").stat().st_size > 5_000
    figures = json.loads((folder / "result.json").read_text())["figures"]
    assert all(set(row) == {"what", "value", "beside", "of", "wished"} for row in figures)
    return {row["what"]: row for row in figures}


def test_convergence(tmp_path: Path) -> None:
    example("convergence").main(tmp_path, 64)
    found = told(tmp_path)
    for std in ("0.5", "2"):
        start = found[f"start, KL / alpha_T^4, std {std}"]
        assert start["value"] == pytest.approx(start["beside"], rel=1e-3)
        score = found[f"a score that is off by 0.05, std {std}"]
        assert score["value"] < score["beside"]
    for name in ("Euler-Maruyama", "exponential"):
        slope = found[f"{name}: slope of KL"]
        assert slope["value"] > 1.8 and slope["beside"] == pytest.approx(1, abs=0.2)
    for name in ("contraction a step", "variance in the end"):
        row = found[f"corrector: {name}"]
        assert row["value"] == pytest.approx(row["beside"], rel=1e-9)


def test_tempering(tmp_path: Path) -> None:
    example("tempering").main(tmp_path, 300, (40,))
    found = told(tmp_path)
    stuck = found["Langevin at the least noise: worst error of a weight"]
    assert stuck["value"] == 0.5 > found["40 sweeps: worst error of a weight"]["value"]


@pytest.mark.slow
def test_compression(tmp_path: Path) -> None:
    """Nothing is learned in three steps, but what is sent comes back."""
    example("compression").main(tmp_path, 3, 16, 20, 1)
    found = told(tmp_path)
    assert found["decoded bit for bit"]["value"] is True
    message = found["bits per dimension of a message"]
    assert message["value"] > message["beside"] > 0
