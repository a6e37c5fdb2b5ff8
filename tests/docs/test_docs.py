"""What the pages say is run: their code, their commands, their links, their names."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
import sys
from pathlib import Path

import pytest

import sdegen as sg
from tests.cases import ROOT
from tests.configs import composed
from tests.processes import call, python, script, typed

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem
)
def test_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": f"page_{page.stem.replace('-', '_')}"}
    module = type(sys)(str(names["__name__"]))
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), module.__dict__)


TINY = [
    "train.steps=2",
    "train.batch_size=8",
    "net.width=16",
    "evaluate.budgets=[2]",
    "device=cpu",
]
FEW = {
    "sdegen-train": TINY,
    "sdegen-sample": ["n=8"],
    "sdegen-evaluate": ["n=8"],
    "sdegen-report": ["nfe=4", "device=cpu"],
    "sdegen-bench": ["n=4"],
    "sdegen-tune": ["seeds=40", "iterations=4", "fine=16"],
}
OWN = str(ROOT / "examples" / "own_package")


def commands() -> list[list[str]]:
    """Those of the experiment page and of the README, in order."""
    lines = "\n".join(blocks(ROOT / "docs" / "add-an-experiment.md", "bash")).splitlines()
    lines += "\n".join(blocks(ROOT / "README.md", "bash")[2:]).splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.startswith("sdegen-")]
    assert len(found) >= 8
    return found


def test_commands_of_the_experiment_page_compose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each as it is printed, up to the configuration that it would run."""
    monkeypatch.syspath_prepend(OWN)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name, *arguments in commands():
        job = [each for each in arguments if each not in ("-m", "--multirun")]
        one = [re.sub(r"=(\w+),[\w,]+$", r"=\1", each) for each in job]  # of a sweep, its first
        look = [] if "--cfg" in one else ["--cfg", "job"]
        done = typed(name.removeprefix("sdegen-"), *one, *look, cwd=tmp_path)
        assert done.code == 0 and "\npackages:" in done.out, f"{name} {arguments}\n{done.err}"


def test_the_experiment_page_names_every_file_of_a_group() -> None:
    lines = (ROOT / "docs" / "add-an-experiment.md").read_text().splitlines()
    rows = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    groups = [path.name for path in (ROOT / "conf").iterdir() if path.is_dir()]
    assert rows.keys() - {"solver"} == set(groups) - {"__pycache__"}
    for group in rows.keys() - {"solver"}:
        folder, named = ROOT / "conf" / group, re.findall(r"[\w/]+", rows[group])
        files = {str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.yaml")}
        assert files <= set(named), f"{group}: {files - set(named)}"


def printed(page: Path) -> list[list[str]]:
    """Commands of a page's blocks, lines that go on put together."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("sdegen-")]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if printed(page)], ids=lambda page: page.stem
)
def test_commands_of_a_page_compose(page: Path) -> None:
    """None names a setting or a file of conf/ that is not there."""
    for name, *arguments in printed(page):
        settings = [each for each in arguments if "=" in each and not each.startswith("-")]
        if "--config-dir" in arguments or name == "sdegen-init" or "-sc" in arguments:
            continue  # of files of one's own, which another test makes
        one = [re.sub(r"=([\w.]+),[\w,.]+$", r"=\1", each) for each in settings]  # of a sweep
        report = name == "sdegen-bench" and arguments[0] == "report"
        composed("bench_report" if report else name.removeprefix("sdegen-"), *one)


@pytest.mark.slow
def test_commands_of_the_experiment_page_run(tmp_path: Path) -> None:
    """Each as it is printed, in order, with overrides that make it small."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for name, *arguments in commands():
        small = FEW[name] if "--cfg" not in arguments else []
        command = [script(name.removeprefix("sdegen-")), *arguments, *small]
        done = call(command, tmp_path, PYTHONPATH=OWN)
        assert done.code == 0, f"{name} {arguments}\n{done.err[-2000:]}"
    assert (tmp_path / "outputs" / "own" / "samples-own.png").is_file()


def test_the_overlay_shown_is_the_overlay_shipped() -> None:
    (shown,) = blocks(ROOT / "docs" / "add-an-experiment.md", "yaml")
    shipped = ROOT / "examples" / "own_package" / "conf" / "experiment" / "own.yaml"
    assert shown == shipped.read_text()


@pytest.mark.slow
def test_example_runs(tmp_path: Path) -> None:
    path = ROOT / "examples" / "two_dimensions.py"
    spec = importlib.util.spec_from_file_location("two_dimensions", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    little = module.main(steps=1, folder=str(tmp_path))
    more = module.main(steps=300, folder=str(tmp_path))
    assert all(more[name] < 0.5 * little[name] for name in ("DPMSolverPP", "Heun"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_equations_are_where_the_table_says() -> None:
    rows = re.findall(
        r"^\|.*\| (sdegen/\S.*?) \| (.*) \|$", (ROOT / "docs/index.md").read_text(), re.M
    )
    assert len(rows) > 15
    for files, names in rows:
        modules = [
            importlib.import_module(file.strip().removesuffix(".py").replace("/", "."))
            for file in files.split(",")
        ]
        for name in re.findall(r"`(\w+)`", names):
            home = [m for m in modules if name in vars(m)]
            assert any(vars(m)[name].__module__ == m.__name__ for m in home), name


CITED = re.compile(
    r"((?:[A-Z][a-z]+, )*[A-Z][a-z]+(?:-[A-Z][a-z]+)?(?: & [A-Z][a-z]+| et al\.)?),? "
    r"\(?(\d{4}[ab]?)\)?"
)


def test_every_paper_named_is_in_the_references() -> None:
    listed = (ROOT / "docs" / "references.md").read_text()
    cited = {
        f"{name} ({year})"
        for path in (ROOT / "sdegen").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for name, year in CITED.findall((ast.get_docstring(node) or "").replace("\n", " "))
        if "&" in name or "et al." in name
    }
    assert len(cited) > 15
    missing = {paper for paper in cited if f"- {paper}." not in listed}
    assert not missing


def test_public_names_are_documented() -> None:
    for name in sg.__all__:
        value = getattr(sg, name)
        assert inspect.getdoc(value), name
        if inspect.isclass(value):
            for key, member in vars(value).items():
                if not key.startswith("_") and inspect.isfunction(member):
                    assert inspect.getdoc(member), f"{name}.{key}"


def rows_of_the_table() -> dict[str, str]:
    """The rest of each row by its solver."""
    page = (ROOT / "docs" / "solvers.md").read_text()
    return dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.M))


def test_the_table_of_solvers_is_the_catalogues() -> None:
    """Every row is a solver, with what it claims; made by the command, never by hand."""
    rows, known = rows_of_the_table(), sg.solvers.catalogue()
    assert len(rows) > 70 and list(rows) == [name for name in known if name in rows]
    for name, entry in ((name, known[name]) for name in rows):
        settings = ", ".join(f"{key}={value!r}" for key, value in entry.settings.items())
        cells = [cell.strip() for cell in rows[name].split(" | ")]
        assert cells[0] == f"`{entry.cls.__name__}({settings})`" and cells[-1] == entry.source
        solver = entry.build()
        if solver.traits.order and (solver.traits.any_eta or solver.eta == 0):
            assert cells[1].startswith(f"{solver.traits.order:g}: "), name


@pytest.mark.slow
def test_every_solver_has_its_row() -> None:
    """A solver may be written and tested before it is measured; it is not published before."""
    missing = set(sg.solvers.catalogue()) - set(rows_of_the_table())
    assert not missing, f"{missing}: run python benchmarks/solver_table.py"


MINE = '''
from dataclasses import dataclass
from sdegen.solvers.exponential import DataForm, lagrange
from sdegen.solvers.multistep import LinearMultistep
from sdegen.solvers.traits import exponential


@dataclass(frozen=True)
class MyAdams(LinearMultistep):
    """Mine."""

    order: int = 3
    form = DataForm()

    @property
    def traits(self):
        return exponential(self.order)

    def weights(self, p, nodes, t, s):
        return lagrange(p, self.form, nodes, t, s)
'''


@pytest.mark.slow
def test_a_solver_is_one_class_in_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written into sdegen.solvers it is in the catalogue, in Hydra's group and in the table."""
    (tmp_path / "mine.py").write_text(MINE)
    import sdegen.solvers

    monkeypatch.setattr(sdegen.solvers, "__path__", [*sdegen.solvers.__path__, str(tmp_path)])
    entry = sg.solvers.catalogue()["my_adams"]
    assert entry.config() == {"_target_": "sdegen.solvers.mine.MyAdams", "order": 3}
    from hydra import compose, initialize_config_module

    from sdegen.cli.main import store_groups
    from sdegen.runs.build import build

    store_groups()
    with initialize_config_module("sdegen.conf", version_base="1.3"):
        cfg = compose("sample", ["solver=my_adams", "solver.order=2", "run=x", "name=x"])
        assert build(cfg.solver).order == 2
    spec = importlib.util.spec_from_file_location("table", ROOT / "benchmarks/solver_table.py")
    assert spec and spec.loader
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    table.SDES = {"VP": sg.VPSDE()}
    row = table.row(entry)
    slope = float(re.search(r"\| 3: (\S+) to", row)[1])  # type: ignore[index]
    assert row.startswith("| `my_adams` | `MyAdams()` |") and abs(slope - 3) < 0.2


@pytest.mark.slow
def test_a_new_solver_is_held_to_the_laws_and_breaks_no_test(tmp_path: Path) -> None:
    """With one file more, and nothing else: the tests that list solvers pass, and try it."""
    (tmp_path / "mine.py").write_text(MINE)
    code = (
        "import sys, pytest, sdegen.solvers;"
        "sdegen.solvers.__path__.append(sys.argv[1]);"
        "sys.exit(pytest.main(sys.argv[2:]))"
    )
    where = ("solvers/test_orders.py", "solvers/test_invariance.py", "sampling/test_clock.py")
    where += ("programs/test_program.py", "docs/test_docs.py")
    which = "my_adams or among_those_tested or is_the_catalogues"
    how = ["-n0", "-q", "-p", "no:cacheprovider", "-k", which]
    said = python("-c", code, tmp_path, *how, *(f"tests/{path}" for path in where), cwd=ROOT)
    (passed,) = re.findall(r"(\d+) passed", said)
    assert int(passed) >= 16, said
