"""Commands and scripts, in this process or in one that is waited for and ended."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest

TINY = [
    "experiment=toy2d",
    "net.width=16",
    "train.batch_size=16",
    "train.log_every=1",
    "evaluate.budgets=[4]",
    "device=cpu",
]
"""What makes sdegen-train a matter of seconds."""

LIMIT = 1200
"""Seconds after which a child hangs. No test is about time: a busy machine must not break one."""


class Outcome(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@contextmanager
def started(
    command: Sequence[str | Path], cwd: Path, **env: str
) -> Iterator[subprocess.Popen[str]]:
    """A child, and its children, that do not outlive the block."""
    with hearing_ctrl_c():
        child = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    with child as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def hearing_ctrl_c() -> Iterator[None]:
    """Children that are started in the block hear Ctrl-C.

    A shell lets its background jobs ignore it, and what is ignored is inherited; what is handled
    is not.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def finish(process: subprocess.Popen[str]) -> Outcome:
    """Wait for a child to end by itself."""
    out, err = process.communicate(timeout=LIMIT)
    return Outcome(process.returncode, out, err)


def call(command: Sequence[str | Path], cwd: Path, **env: str) -> Outcome:
    """A command to its end."""
    with started(command, cwd, **env) as process:
        return finish(process)


def python(*arguments: str | Path, cwd: Path, **env: str) -> str:
    """What this interpreter says of arguments, which must not fail."""
    done = call([sys.executable, *arguments], cwd, **env)
    assert done.code == 0, done.out + done.err
    return done.out


def script(name: str) -> Path:
    """The command that was installed beside this interpreter."""
    return Path(sys.executable).parent / f"sdegen-{name}"


def run(name: str, *arguments: str, cwd: Path) -> Outcome:
    """``sdegen-<name>`` as a person starts it: in a process, which is what costs time."""
    return call([script(name), *arguments], cwd)


def typed(name: str, *arguments: str, cwd: Path) -> Outcome:
    """``sdegen-<name>`` with the same arguments in this process: all but its start."""
    main = importlib.import_module(f"sdegen.cli.{name}").main
    out, err = StringIO(), StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        warnings.simplefilter("ignore")  # a command goes on where a test would end
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [f"sdegen-{name}", *arguments])
        patch.setenv("HYDRA_FULL_ERROR", "1")  # which the command sets, and leaves set
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    if isinstance(code, str):  # what Python prints of such an end
        print(code, file=err)
        code = 1
    return Outcome(code or 0, out.getvalue(), err.getvalue())


HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
file.write("process 7 on elsewhere"), file.flush()
print("locked", flush=True)
time.sleep(600)
"""


@contextmanager
def another_at_work(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """One that has locked a folder, as the system sees it, and is killed in the end."""
    command = [sys.executable, "-c", HOLDER, str(folder / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()
