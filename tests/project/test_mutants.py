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
    every = [mutating.Mutant(row[0], room, *row[1:]) for room in rooms for row in rooms[room]]
    found = {each: [*mutating.places(each, ROOT / "sdegen")] for each in every}
    assert len(every) >= 126 and not [each for each in every if len(found[each]) != 1]
