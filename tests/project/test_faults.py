"""What benchmarks/faults.py can be asked for."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def python(*words: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """The command in this process, whose threads and variables it leaves as they were."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which it sets itself
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    main, threads = importlib.import_module("faults").main, torch.get_num_threads()

    def run(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["faults.py", *map(str, words)])
        with warnings.catch_warnings():
            main()

    yield run
    torch.set_num_threads(threads)


def test_kinds_that_there_are_not_are_refused(
    faults: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "faults.json"
    kept.write_text('{"growth": 1}')
    for words in (["bogus"], []):
        with pytest.raises(SystemExit) as end:
            faults("--quick", "--out", tmp_path, "--only", *words)
        assert end.value.code == 2 and "argument --only: " in capsys.readouterr().err
    assert kept.read_text() == '{"growth": 1}'


def test_one_kind_alone(faults: Callable[..., None], tmp_path: Path) -> None:
    """Of a record that is there the others stay; without one it is all that there is."""
    log, new = tmp_path / "log", tmp_path / "new"
    told = {"number": 3, "argv": ["sdegen-init"], "end": "a result", "fine": True}
    log.write_text(json.dumps({**told, "said": "", "commit": "abc"}))
    for others in ({}, {"growth": 1}):
        faults("--out", new, "--only", "odd commands", "--lines", log)
        record = json.loads((new / "faults.json").read_text())
        assert record["odd commands"]["survived"] == 1
        assert {k: v for k, v in record.items() if k == "growth"} == others
        (new / "faults.json").write_text(json.dumps({**record, "growth": 1}))


@pytest.mark.slow
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
