"""sdegen-bench as a person types it: points, a sweep, its page."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdegen.bench.results import load
from sdegen.report.standings import TIE, best, cells_of
from tests.processes import LIMIT, finish, run, script, started, typed

QUICK = ["n=4", "nfe=[4,6]"]
LONG = ["problem=low_rank", "sde=vp,ve,edm,flow,cosine,subvp", "solver=ddim,heun", "n=48"]


def points(cwd: Path, folder: str = "outputs/bench") -> list[dict[str, Any]]:
    """All that a folder holds."""
    paths = sorted((cwd / folder / "points").glob("*.json"))
    return [json.loads(path.read_text()) for path in paths]


@pytest.mark.slow
def test_points_are_made_once_and_holes_have_a_reason(tmp_path: Path) -> None:
    code, out, err = run("bench", *QUICK, "solver=ddim", cwd=tmp_path)
    assert code == 0 and out.count("solver=ddim") == 2, err
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").rglob("*.json")}
    code, out, _ = typed("bench", *QUICK, "solver=ddim", cwd=tmp_path)
    assert code == 0 and out == ""
    assert made == {p: p.stat().st_mtime_ns for p in (tmp_path / "outputs").rglob("*.json")}
    code, out, err = typed("bench", "n=4", "nfe=[1,4]", "solver=heun", cwd=tmp_path)
    assert code == 1 and "at least 2 network calls" in err and "nfe=4: rms" in out
    found = points(tmp_path)
    assert len(found) == 4 and sum("failed" in point for point in found) == 1
    # A hole is tried again: a library may have been installed since.
    code, _, err = typed("bench", "n=4", "nfe=[1,4]", "solver=heun", cwd=tmp_path)
    assert code == 1 and "at least 2 network calls" in err


@pytest.mark.slow
def test_a_sweep_goes_on_past_holes_and_stops_at_ctrl_c(tmp_path: Path) -> None:
    some = ["n=4", "solver=heun,ddim", "problem=mixture,stiff"]
    code, _, err = run("bench", "-m", *some, "nfe=[1,4]", cwd=tmp_path)
    assert code == 1 and "2 of 4 jobs could not" in err and "Traceback" not in err
    assert len(points(tmp_path)) == 8
    with started([script("bench"), "-m", *LONG], tmp_path) as process:
        first_of(process, tmp_path)
        process.send_signal(signal.SIGINT)
        code, _, err = finish(process)
    assert code == 128 + signal.SIGINT, err
    assert not list((tmp_path / "outputs").rglob(".*-*.json"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts processes in /proc")
def test_workers_end_with_the_command_that_was_killed(tmp_path: Path) -> None:
    with started([script("bench"), "-m", *LONG], tmp_path) as process:
        first_of(process, tmp_path)
        workers = children(process.pid)
        assert workers
        process.kill()
        finish(process)
        until(lambda: not any(alive(pid) for pid in workers))


def first_of(process: subprocess.Popen[str], cwd: Path) -> None:
    """Wait until a sweep has written something."""
    before = len(list((cwd / "outputs").rglob("*.*")))
    until(lambda: len(list((cwd / "outputs").rglob("*.*"))) > before)
    assert process.poll() is None


def until(true: Callable[[], bool]) -> None:
    """Wait for it."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() < begun + LIMIT
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process runs, and is not merely waited for."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["problem=nosuch"], "Could not find 'problem/nosuch'"),
        (["solver=nosuch"], "Could not find 'solver/nosuch'"),
        (["problem=[]"], "There is no problem: give problem=NAME"),
        (["sde=[]"], "There is no sde: give sde=NAME"),
        (["nfe=0"], "nfe must be a positive number"),
        (["nfe=[5,x]"], "nfe must be a positive number"),
        (["nfe=[]"], "nfe is an empty list"),
        (["seed=x"], "seed must be a whole number >= 0"),
        (["draws=2", "solver=ddpm"], "draws must be a whole number >= 3"),
        (["repeats=-1"], "repeats must be a whole number >= 0"),
        (["device=cuda", "dtype=x"], "Unknown dtype"),
        (["problem=gaussian", "problem.condition=-1"], "A condition is at least 1"),
        (["solver=k_dpm_adaptive", "tol=1e-20"], "tol must be at least 1e-12"),
        (["nfe=2.5"], "nfe must be a whole number"),
        (["n=1"], "n must be a whole number >= 2"),
        (["n=x"], "n must be a whole number >= 2"),
        (["dtype=float16"], "Unknown dtype"),
        (["solver=auto", "steps=3"], "for a number of network calls"),
        (["solver=k_euler", "dtype=float32"], "Other libraries run in float64"),
        (["problem=run", "problem.path=nowhere"], "There is no checkpoint"),
        (["report", f"folder={__file__}"], "is a table: say where the page goes"),
        (["report", "folder=nowhere"], "There are no points in nowhere"),
    ],
)
def test_wrong_commands_end_in_a_sentence(
    tmp_path: Path, arguments: list[str], reason: str
) -> None:
    code, _, err = typed("bench", *arguments, cwd=tmp_path)
    assert code == 1 and reason in err and "Traceback" not in err, err


def test_a_folder_of_another_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "bench.json").write_text('{"version": 0}')
    code, _, err = typed("bench", *QUICK, "folder=old", cwd=tmp_path)
    assert code == 1 and "holds results of version 0" in err


@pytest.mark.slow
def test_the_whole_chain_and_sdegen_is_not_behind(tmp_path: Path) -> None:
    """The smoke sweep and its page; at every budget the best of sdegen is the best."""
    code, out, err = run("bench", "-m", "+sweep=smoke", cwd=tmp_path)
    assert code == 0, err
    results = load(tmp_path / "outputs" / "smoke")
    assert not results.holes and results.libraries() == ["diffusers", "k-diffusion"]
    errors = results.errors()
    cells = cells_of(errors)
    assert len(cells) == 2 * 2 * 4
    for cell in cells:
        ours, theirs = best(errors, cell, True), best(errors, cell, False)
        assert ours is not None and theirs is not None and ours.error <= TIE * theirs.error, cell
    code, out, err = typed("bench", "report", "folder=outputs/smoke", cwd=tmp_path)
    assert code == 0 and "report.html" in out, err
    page = (tmp_path / "outputs" / "smoke" / "report.html").read_text()
    panels = {"standing": 1, "curves": 4, "orders": 1, "noise": 4, "paths": 6, "digits": 8}
    assert page.count('role="img"') == sum(panels.values()) and "diffusers_unipc_3" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page
    code, _, err = typed("bench", "report", "folder=outputs/smoke", "default=x/y", cwd=tmp_path)
    assert code == 1 and "default names a solver and a walk" in err
