"""The table of the reading list: nothing in it is dead, and the page is what it makes."""

from __future__ import annotations

import importlib.util
import shlex
from types import ModuleType

import pytest

from tests.cases import ROOT
from tests.configs import composed


@pytest.fixture(scope="module")
def reading() -> ModuleType:
    """The script."""
    path = ROOT / "benchmarks" / "reading.py"
    spec = importlib.util.spec_from_file_location("reading", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_table_makes(reading: ModuleType) -> None:
    assert reading.PAGE.read_text() == "\n".join(reading.page()), "run benchmarks/reading.py"


def test_nothing_that_it_names_is_missing(reading: ModuleType) -> None:
    papers = (ROOT / "docs" / "references.md").read_text()
    rows = reading.rows()
    assert len(rows) > 40 and len({row["system"] for row in rows}) == len(rows)
    for row in rows:
        where = row["system"]
        assert all(f"- {each}. " in papers for each in row["papers"].split("; ")), where
        assert all((ROOT / each).is_file() for each in reading.homes(row)), where
        assert (ROOT / "tests" / row["law"]).is_file(), where
        told, *pictures = row["page"].split()
        assert (ROOT / "docs" / f"{told}.md").is_file(), where
        assert all((ROOT / "docs" / each).is_file() for each in pictures), where


@pytest.mark.slow
def test_its_commands_compose(reading: ModuleType) -> None:
    for said in dict.fromkeys(row["command"] for row in reading.rows()):
        command, *arguments = shlex.split(said)
        if command == "python":
            assert (ROOT / arguments[0]).is_file(), said
            continue
        assert command.startswith("sdegen-"), said
        composed(command.removeprefix("sdegen-"), *arguments)
