"""Records of compression and convergence: pages show them, and they are what was asked for."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.cases import ROOT


def script(name: str) -> ModuleType:
    """A benchmark, imported from its file."""
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"bench_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(name: str) -> dict[str, Any]:
    """What it has left."""
    kept: dict[str, Any] = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())
    return kept


@pytest.mark.parametrize("name", ["compression", "convergence"])
def test_pages_have_the_tables_of_the_records(name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text()
    tables = script(name).table(record(name)).split("\n\n")
    assert len(tables) >= 2 and all(each.strip() in page for each in tables)


def test_rates_and_distortions_are_what_was_asked_for() -> None:
    kept = record("compression")
    over = {row["steps"]: row["over"] for row in kept["rates"] if row["sde"] == "VP"}
    assert 0 < over[1000] < 0.015 and 0 < over[100] < 0.1
    assert over[100] / over[200] == pytest.approx(2, abs=0.15)
    for row in kept["distortions"]:
        assert row["Shannon"] < row["mean"][0] < row["flow"][0]
        for name in ("mean", "flow"):
            got, exact = row[name]
            assert got / exact == pytest.approx(1, abs=0.02)
    for row in kept["channels"]:
        assert row["kl"] < row["bits"] < row["bound"]
        assert row["extra"] < 7 or 0.95 < row["mean"] < 1.03
    assert all(row["same"] and row["kl"] < row["bits"] for row in kept["messages"])


def test_every_bound_holds_in_the_record() -> None:
    kept, module = record("convergence"), script("convergence")
    assert len(kept["cells"]) == 12 and kept["every bound holds"]
    for row in kept["cells"].values():
        assert module.holds(row) and len(row["exponential"]["steps"]) == 5
        assert row["exponential"]["slopes"] == pytest.approx([2, 1], abs=0.05)
    for row in kept["correctors"]:
        assert row["variance in the end"] == pytest.approx(row["v / (1 - e / 2 v)"])
        assert row["KL after a time of v / 2"] < row["theory"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compression", "convergence"])
def test_benchmarks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "record.json"
    monkeypatch.setattr(sys, "argv", [name, "--quick", "--out", str(out)])
    script(name).main()
    assert json.loads(out.read_text()).keys() == record(name).keys()
