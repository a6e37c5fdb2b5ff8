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


def test_every_verdict_is_of_the_mutant_as_it_stands() -> None:
    """One of an older text says nothing of today's; nor does one that nobody could make."""
    rooms, after = (
        json.loads((ROOT / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("mutants", "mutants_after")
    )
    wanted = {row[0]: [room, *row[1:]] for room in rooms for row in rooms[room]}
    tried = {
        name: [each[key] for key in ("room", "function", "from", "to")]
        for name, each in after["mutants"].items()
    }
    assert tried == wanted
    verdicts = [each["verdict"] for each in after["mutants"].values()]
    assert all(each == "survived" or each.startswith("killed") for each in verdicts)
