"""The mutants of benchmarks/mutants.json can be made of the tree as it is."""

from __future__ import annotations

import importlib
import json
import sys

import pytest

from tests.cases import ROOT


def test_every_mutant_stands_in_the_tree_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose text is not there says nothing of the tests."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    mutating = importlib.import_module("mutating")
    rooms = json.loads((ROOT / "benchmarks" / "mutants.json").read_text(encoding="utf-8"))
    lost = {
        name: function
        for room, rows in rooms.items()
        for name, function, old, new in rows
        if len(
            [*mutating.places(mutating.Mutant(name, room, function, old, new), ROOT / "sdegen")]
        )
        != 1
    }
    assert sum(map(len, rooms.values())) >= 126 and not lost
