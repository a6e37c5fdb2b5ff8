"""The gallery: its commands compose, its pages are what records say, one of each family runs."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.cases import ROOT, refused
from tests.configs import composed

BENCHMARKS = ROOT / "benchmarks"
TINY = [
    "net.width=16",
    "net.heads=2",
    "train.steps=2",
    "train.batch_size=8",
    "evaluate.budgets=[2]",
]


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("gallery", BENCHMARKS / "gallery.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("systems", "programs", "worded"):
        monkeypatch.delitem(sys.modules, name)
    return module


def test_systems_say_what_there_is(gallery: ModuleType) -> None:
    papers = (ROOT / "docs" / "references.md").read_text()
    systems = gallery.EVERY
    assert len(gallery.KNOWN) == len(systems) > 10
    for system in systems:
        assert system.family in gallery.FAMILIES
        assert all((ROOT / home).is_file() for home in system.homes), system.name
        assert all(f"- {paper}. " in papers for paper in system.papers), system.name
        alike = [other for other in systems if other.run == system.run]
        if system.script is not None:
            assert (ROOT / "examples" / system.script).is_file() and alike == [system]
            continue
        owners = [other for other in alike if other.train is not None]
        assert len(owners) == 1 and (owners[0] is system or owners[0].name in system.needs)
    assert gallery.in_order(["ddim", "cfg"]) == ["ddpm", "ddim", "edm", "cfg"]


@pytest.mark.slow
def test_all_commands_compose(gallery: ModuleType) -> None:
    for system in gallery.EVERY:
        for line in system.commands if system.script is None else ():
            command, *arguments = shlex.split(line)
            composed(command.removeprefix("sdegen-"), *arguments)


def test_pages_are_made_of_records(gallery: ModuleType) -> None:
    made = gallery.pages(gallery.PAGES)
    assert len(made) > 2
    for path, text in made.items():
        assert path.read_text() == text, f"{path}: run python benchmarks/gallery.py pages"
    kept = {path.name for path in gallery.PAGES.iterdir() if path.suffix == ".md"}
    assert kept == {path.name for path in made}
    for name in (path.stem for path in gallery.PAGES.glob("*.json")):
        told = json.loads((gallery.PAGES / f"{name}.json").read_text())
        assert [each["line"] for each in told["commands"]] == gallery.KNOWN[name].commands
        assert (gallery.PAGES / told["picture"]).is_file()


@pytest.mark.slow
def test_a_command_that_fails_leaves_no_record(gallery: ModuleType, tmp_path: Path) -> None:
    with refused("sdegen-sample run=outputs/digits .* failed with 1"):
        gallery.record(gallery.KNOWN["cfg"], tmp_path / "runs", tmp_path / "records", TINY)
    assert not list((tmp_path / "records").iterdir())


@pytest.mark.slow
def test_one_of_each_family_runs(
    gallery: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systems = gallery.EVERY
    first = {system.family: system.name for system in reversed(systems)}
    folders = ["--folder", str(tmp_path / "runs"), "--records", str(tmp_path / "records")]
    monkeypatch.setattr(
        sys, "argv", ["gallery", "run", *first.values(), *folders, "--tiny", *TINY]
    )
    gallery.main()
    monkeypatch.setattr(sys, "argv", ["gallery", "pages", *folders])
    gallery.main()
    index = (tmp_path / "records" / "index.md").read_text()
    for family, name in first.items():
        told = json.loads((tmp_path / "records" / f"{name}.json").read_text())
        assert told["rows"] and all(each["seconds"] > 0 for each in told["commands"])
        assert f"({name}.md)" in index and gallery.FAMILIES[family] in index
        page = (tmp_path / "records" / f"{name}.md").read_text()
        assert gallery.KNOWN[name].equation in page and f"]({name}.png)" in page
