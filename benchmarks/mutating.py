"""One change of a function's text, made in a copy of the tree, and the tests run there.

The machinery of mutants.py: nothing here knows which changes, or which tests.
"""

from __future__ import annotations

import ast
import compileall
import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import tokenize
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

COPIED = ("sdegen", "conf", "tests", "benchmarks", "docs", "examples")
"""Folders of a copy; the files beside them go along."""


class Mutant(NamedTuple):
    """One small change.  id: its name in every run, whatever becomes of the text."""

    id: str
    room: str
    function: str
    old: str
    new: str


class Lost(ValueError):
    """A mutant whose text is not there, or more than once."""


# ------------------------------------------------------------------------------------ the change


class Token(NamedTuple):
    """A token's text and where it stands, as offsets into the source."""

    text: str
    start: int
    end: int


def starts(source: str) -> list[int]:
    """Where each line begins, and where the last one ends."""
    found = [0]
    for line in source.splitlines(keepends=True):
        found.append(found[-1] + len(line))
    return found


def tokens(source: str) -> list[Token]:
    """A source's tokens, without comments and layout; of a fragment too."""
    begins = starts(source)
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    found = []
    with contextlib.suppress(tokenize.TokenError):  # a fragment may end within parentheses
        read = io.StringIO(source).readline
        for kind, text, (a, b), (c, d), _ in tokenize.generate_tokens(read):
            if kind not in layout and kind != tokenize.ENDMARKER:
                found.append(Token(text, begins[a - 1] + b, begins[c - 1] + d))
    return found


def named(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Every class, function and module-level name with its definition, by qualified name."""

    def inside(body: Iterable[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.stmt]]:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield prefix + node.name, node
                if isinstance(node, ast.ClassDef):
                    yield from inside(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                yield prefix + node.targets[0].id, node
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield prefix + node.target.id, node

    yield from inside(tree.body, "")


@cache
def read(source: str) -> tuple[list[Token], list[int], list[tuple[str, ast.stmt]]]:
    """A source's tokens, where its lines begin, and its definitions: made once for all mutants."""
    return tokens(source), starts(source), list(named(ast.parse(source)))


def places(mutant: Mutant, package: Path) -> Iterator[tuple[Path, int, int]]:
    """Where the mutant's text stands: file, and offsets."""
    wanted = [token.text for token in tokens(mutant.old)]
    for path in sorted(package.rglob("*.py")):
        source = path.read_text()
        if not all(part in source for part in mutant.function.split(".")):
            continue
        every, begins, definitions = read(source)
        for name, node in definitions:
            if name != mutant.function or node.end_lineno is None:
                continue
            first, last = begins[node.lineno - 1], begins[node.end_lineno]
            own = [token for token in every if first <= token.start < last]
            for i in range(len(own) - len(wanted) + 1):
                if [token.text for token in own[i : i + len(wanted)]] == wanted:
                    yield path, own[i].start, own[i + len(wanted) - 1].end


def mutate(mutant: Mutant, package: Path) -> None:
    """Make the change in a copy of the package; Lost if it is not to be made just once."""
    found = list(places(mutant, package))
    if len(found) != 1:
        raise Lost(f"{mutant.function} has {mutant.old!r} {len(found)} times.")
    path, start, end = found[0]
    source = path.read_text()
    changed = source[:start] + mutant.new + source[end:]
    if ast.dump(ast.parse(changed)) == ast.dump(ast.parse(source)):
        raise Lost(f"{mutant.new!r} in {mutant.function} changes nothing.")
    path.write_text(changed)


# ------------------------------------------------------------------------------------- the tests


def selected(entries: Iterable[str], tests: Path) -> list[tuple[str, str]]:
    """Files, relative to the tree, and what is looked for in their tests' names, in order."""
    found = []
    for entry in dict.fromkeys(entries):
        pattern, _, names = entry.partition("::")
        found += [
            (str(path.relative_to(tests.parent)), names) for path in sorted(tests.rglob(pattern))
        ]
    if not found:
        raise SystemExit(f"No test file matches {', '.join(entries)}: see ROOMS.")
    return found


@dataclass(eq=False)
class Inside:
    """pytest's plugin in the copy: picks and orders tests, and notes the first that fails."""

    entries: list[tuple[str, str]]
    killer: str = ""
    ran: int = 0

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Each test once, where it is first asked for."""
        left, picked = list(items), list[pytest.Item]()
        for file, names in self.entries:
            chosen = [
                item
                for item in left
                if item.nodeid.startswith(f"{file}::")
                and re.search(names, item.nodeid.partition("::")[2])
            ]
            picked += chosen
            left = [item for item in left if item not in set(chosen)]
        items[:] = picked

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be imported."""
        if report.failed:
            self.killer = self.killer or report.nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that fails."""
        self.ran += report.when == "call"
        if report.failed:
            self.killer = self.killer or report.nodeid


def inside(copy: Path, entries: list[tuple[str, str]], limit: int) -> None:
    """Run the tests of a copy, in a process of its own, and leave what came of it in a file."""
    os.setsid()
    # Of the processor's time: a busy machine shall not kill a mutant.
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    said = os.open(copy / "said.txt", os.O_CREAT | os.O_WRONLY)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)  # of what the tests start
    sys.path[0] = str(copy)  # before the folder of an editable install
    sys.argv = ["pytest"]
    plugin = Inside(entries)
    files = list(dict.fromkeys(file for file, _ in entries))
    options = ["-x", "-q", "-n0", "--tb=short", "-p", "no:cacheprovider"]
    # What was imported before the fork may be a plugin's, and needs no rewriting.
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = int(pytest.main([*options, f"--basetemp={copy / 'tmp'}", *files], plugins=[plugin]))
    own = [
        str(getattr(module, "__file__", None) or copy)
        for name, module in sys.modules.items()
        if name.split(".")[0] == "sdegen" and not name.startswith("sdegen.conf")
    ]
    stray = [file for file in own if not Path(file).is_relative_to(copy)]
    record = {"code": code, "killer": plugin.killer, "ran": plugin.ran, "stray": stray}
    (copy / "result.json").write_text(json.dumps(record))


# ---------------------------------------------------------------------------------------- a copy


class Child:
    """A copy of the tree and the process that tests it."""

    def __init__(
        self, template: Path, entries: list[tuple[str, str]], mutant: Mutant | None, limit: int
    ) -> None:
        self.template, self.begun = template, time.monotonic()
        self.copy = Path(tempfile.mkdtemp(prefix="mutant-")).resolve()
        try:
            # With their times, so that what is compiled already stays so.
            shutil.copytree(template, self.copy, dirs_exist_ok=True)
            if mutant is not None:
                mutate(mutant, self.copy / "sdegen")
        except BaseException:
            shutil.rmtree(self.copy)
            raise
        self.pid = os.fork()
        if not self.pid:
            try:
                inside(self.copy, entries, limit)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(0)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return round(time.monotonic() - self.begun, 1)

    def verdict(self) -> dict[str, Any] | None:
        """What came of it, None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        left = self.copy / "result.json"
        said = (self.copy / "said.txt").read_text(errors="replace")
        if os.WIFSIGNALED(status):
            late = os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
            verdict = "killed: timeout" if late else "killed: crash"
            return {"verdict": verdict, "killer": "", "seconds": self.seconds}
        if not left.exists():
            raise SystemExit(f"The tests could not be run:\n{said[-3000:]}")
        record = json.loads(left.read_text())
        if record["stray"]:
            raise SystemExit(f"Not the copy was tested, but {record['stray'][0]}.")
        if record["code"] == pytest.ExitCode.INTERNAL_ERROR:
            raise SystemExit(f"pytest failed, no test:\n{said[-3000:]}")
        if record["code"] == pytest.ExitCode.NO_TESTS_COLLECTED:
            raise SystemExit(f"No test was found: see ROOMS.\n{said[-2000:]}")
        if record["code"] == 0:
            return {"verdict": "survived", "tests": record["ran"], "seconds": self.seconds}
        killer = record["killer"] or "conftest"
        return {"verdict": "killed", "killer": killer, "seconds": self.seconds}

    def end(self) -> None:
        """Stop what runs of it, and remove its files; what pytest compiled is kept for others."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        for made in (self.copy / "tests").rglob("__pycache__"):
            shutil.copytree(made, self.template / made.relative_to(self.copy), dirs_exist_ok=True)
        shutil.rmtree(self.copy, ignore_errors=True)


def template_of(root: Path, parent: Path) -> Path:
    """What each mutant starts from."""
    made = parent / "template"
    made.mkdir()
    skip = shutil.ignore_patterns(".*", "*.egg-info", "outputs", "multirun")
    for path in root.iterdir():
        if path.name in COPIED:
            shutil.copytree(path, made / path.name, ignore=skip)
        elif path.is_file():
            shutil.copy2(path, made)
    compileall.compile_dir(made / "sdegen", quiet=2)
    return made
