"""What benchmarks/faults.py can be asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def python(*words: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_kinds_that_there_are_not_are_refused(tmp_path: Path) -> None:
    kept = tmp_path / "faults.json"
    kept.write_text('{"growth": 1}')
    for words in (["bogus"], []):
        said = python(BENCHMARKS / "faults.py", "--quick", "--out", tmp_path, "--only", *words)
        assert said.returncode == 2 and "argument --only: " in said.stderr
    assert kept.read_text() == '{"growth": 1}'


def test_one_kind_alone(tmp_path: Path) -> None:
    """Of a record that is there the others stay; without one it is all that there is."""
    log, new = tmp_path / "log", tmp_path / "new"
    told = {"number": 3, "argv": ["sdegen-init"], "end": "a result", "fine": True}
    log.write_text(json.dumps({**told, "said": "", "commit": "abc"}))
    words = ["--out", new, "--only", "odd commands", "--lines", log]
    for others in ({}, {"growth": 1}):
        said = python(BENCHMARKS / "faults.py", *words)
        assert said.returncode == 0, said.stderr
        record = json.loads((new / "faults.json").read_text())
        assert record["odd commands"]["survived"] == 1
        assert {k: v for k, v in record.items() if k == "growth"} == others
        (new / "faults.json").write_text(json.dumps({**record, "growth": 1}))


def test_the_few_lines_are_one_of_each_command() -> None:
    """Their numbers are of what odd_settings.py says now: other settings want other numbers."""
    code = (
        f"import sys; sys.path.append({str(BENCHMARKS)!r}); import json, faults, odd_lines as o; "
        "few = faults.FEW; lines = {n: o.line(n) for n in few.values()}; "
        "print(json.dumps([few, lines, o.EVERY, [*o.USUAL]]))"
    )
    said = python("-c", code)
    assert said.returncode == 0, said.stderr
    few, lines, every, commands = json.loads(said.stdout)
    assert {*few} == {f"sdegen-{each}" for each in commands}
    for name, number in few.items():
        command, *word = name.split()
        argv = lines[str(number)]
        assert argv[0] == command and ("report" in argv[1:2]) == (word == ["report"])
    assert any(number % every == 0 for number in few.values())


@pytest.mark.slow
def test_the_few_lines_end_as_they_should(tmp_path: Path) -> None:
    """One that ends in a result is a process too."""
    words = ["--quick", "--out", tmp_path, "--only", "odd commands"]
    said = python(BENCHMARKS / "faults.py", *words)
    assert said.returncode == 0, said.stderr
    found = json.loads((tmp_path / "faults.json").read_text())["odd commands"]
    assert found["tried"] == found["survived"] == 9, found["wrong"]
    results = {each.removesuffix(": a result") for each in found["ends"] if "result" in each}
    usual = ("train", "sample", "evaluate", "tune", "bench", "report", "card")
    assert results == {f"sdegen-{name}" for name in usual}
