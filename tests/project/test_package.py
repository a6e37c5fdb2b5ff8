"""The package as a user gets it: a wheel elsewhere, and an import that needs torch alone."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import yaml

import sdegen as sg
from tests.cases import ROOT
from tests.processes import call, python


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tracked tree, so that no build folder lies about."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    names = call(["git", "ls-files", "-co", "--exclude-standard"], ROOT).out.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    python("-m", "build", "-w", "-n", "-o", out, source, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_every_module_and_every_setting(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "sdegen").rglob("*.py")}
    launcher = "sdegen/bench/launcher/__init__.py"  # Hydra looks for it elsewhere
    modules = modules - {launcher} | {"hydra_plugins/_sdegen/__init__.py"}
    settings = {f"sdegen/{p.relative_to(ROOT)}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert modules and settings
    others = {"sdegen/py.typed", "sdegen/report/viewer.js", "sdegen/sampling/references.bib"}
    own = [p for p in (ROOT / "examples" / "own_package").rglob("*") if p.is_file()]
    named = [str(p.relative_to(ROOT / "examples" / "own_package")) for p in own]
    skeleton = {f"sdegen/skeleton/{name}" for name in named if "__pycache__" not in name}
    assert modules | settings | others | skeleton <= inside
    assert not any(name.startswith("tests/") for name in inside)


@pytest.mark.slow
def test_wheel_installed_elsewhere_trains(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    python(*install, cwd=tmp_path)
    code = (
        "import sys, sdegen; assert sdegen.__file__.startswith(sys.argv.pop()), sdegen.__file__;"
        "from sdegen.cli.train import main; main()"
    )
    tiny = ["experiment=toy2d", "train.steps=2", "train.batch_size=8", "evaluate.budgets=[2]"]
    out = python("-c", code, *tiny, site, cwd=tmp_path, PYTHONPATH=str(site))
    assert "sliced W2" in out
    assert (tmp_path / "outputs" / "toy2d" / "table.json").is_file()


HEAVY = ("hydra", "omegaconf", "torchsde", "torchdiffeq", "sklearn", "matplotlib", "scipy")


def test_import_needs_torch_alone() -> None:
    """With everything else forbidden the import works, and so do a loss and a sample."""
    code = f"""
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {(*HEAVY, "lightning_fabric", "tqdm", "safetensors", "PIL")!r}:
            raise ImportError(name + " is forbidden here")
sys.meta_path.insert(0, Forbid())
import torch, sdegen as sg
model = sg.ScoreModel(lambda x, t: x, sg.VPSDE())
assert sg.dsm_loss(model, torch.randn(3, 2)).shape == (3,)
assert sg.sample(model, (3, 2), solver=sg.DDIM(), steps=2, seed=0).shape == (3, 2)
"""
    python("-c", code, cwd=ROOT)


def test_import_brings_nothing_heavy() -> None:
    code = f"""
import sys, torch
before = set(sys.modules)
import sdegen

from tests.cases import ROOT
from tests.processes import call, python
new = {{name.split(".")[0] for name in set(sys.modules) - before}}
assert not new & set({HEAVY!r}), new
"""
    python("-c", code, cwd=ROOT)


def test_the_citation_is_of_this_version() -> None:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert found["version"] == sg.__version__ and found["license"] == "Apache-2.0"
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [r["repo"] for r in hooks["repos"]] == ["local"]  # nothing is fetched
