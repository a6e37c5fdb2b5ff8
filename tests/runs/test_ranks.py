"""Several processes that a launcher has started: they share the chunks, and hear who has died."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import sdegen.runs.samples as samples
from sdegen.runs.chunks import PARTS, SAMPLES
from sdegen.runs.ranks import Ranks, ranks
from sdegen.runs.settings import SampleSettings, read
from tests.cases import refused
from tests.processes import TINY, finish, script, started, typed


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a tiny conditional run on points of the plane has finished."""
    cwd = tmp_path_factory.mktemp("ranks")
    few = [f"~evaluate.solvers.{name}" for name in ("ddpm", "ddim", "heun", "euler_maruyama")]
    how = [*TINY, *few, "train.steps=2", "conditional=true", "evaluate.budgets=[2]"]
    code, _, err = typed("train", *how, cwd=cwd)
    assert code == 0, err
    return cwd / "outputs" / "toy2d"


def settings(run: Path, name: str, **more: Any) -> SampleSettings:
    """Of twenty samples with noise, in chunks of three."""
    config = {"run": str(run), "name": name, "n": 20, "nfe": 4, "steps": None, "eta": 1.0}
    config |= {"seed": 0, "denoise": False, "batch_size": 3, "classes": None, "formats": []}
    config |= {"weights": "finished", "quality": False, "objective": None, "device": "cpu"}
    config |= {"packages": [], "devices": 1, "step": None, "ema": None, "start": None}
    config |= {"ema_std": None, "prompt": None, "prompts": None, "truncate": None}
    config |= {
        "image": None,
        "draws": None,
        "solver": {"_target_": "sdegen.DPMSolverPP"},
        "walk": None,
    }
    return read(SampleSettings, {**config, **more})


def silent(what: str) -> None:
    raise AssertionError(what)


class Wire:
    """Between two ranks in one process: the second does its part while the first one waits."""

    def __init__(self, patch: pytest.MonkeyPatch, chosen: SampleSettings) -> None:
        self.patch, self.chosen, self.second, self.value = patch, chosen, False, None

    def become(self, rank: int) -> None:
        self.second = bool(rank)
        self.patch.setattr(samples, "ranks", lambda: Ranks(rank, 2, 0, self))

    def broadcast(self, value: Any) -> Any:
        if not self.second:
            self.value = value
        return self.value

    def barrier(self) -> None:
        if not self.second:
            self.become(1)
            assert samples.sample_run(self.chosen, silent) is None


def made(run: Path, chosen: SampleSettings) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(run / "samples" / chosen.title / SAMPLES)
    return found


def test_two_ranks_make_the_samples_of_one(plane: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = settings(plane, "one"), settings(plane, "two")
    assert samples.sample_run(one, silent) is not None
    wire = Wire(monkeypatch, two)
    wire.become(0)
    assert samples.sample_run(two, silent) is not None and wire.second
    a, b = made(plane, one), made(plane, two)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert len(a["x"]) == 20 and not (plane / "samples" / two.title / PARTS).exists()
    with refused("devices=2 starts processes, but 2 have been started together"):
        samples.sample_run(settings(plane, "three", devices=2), silent)


def test_more_processes_than_chunks_is_said(plane: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = settings(plane, "few", n=4, batch_size=100)
    Wire(monkeypatch, few).become(0)
    with pytest.warns(UserWarning, match="n=4 are 1 chunk of batch_size=100, .* batch_size=2 to"):
        samples.sample_run(few, silent)


class Cut:
    """A connection to a process that has died."""

    def broadcast(self, value: Any) -> Any:
        raise RuntimeError("Connection closed by peer")

    def barrier(self) -> None:
        self.broadcast(None)


def test_who_has_died_is_heard() -> None:
    alone = Ranks(0, 3, 0, Cut())
    with refused("Another of the 3 processes ended before its part .*: what it says is the"):
        alone.share()
    with refused("what was written stays, and if that process says no reason"):
        alone.wait()
    assert Ranks(1, 3, 0, Cut()).part([(i, 1) for i in range(7)]) == [(1, 1), (4, 1)]


def test_a_process_is_alone_where_nobody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    assert ranks.__wrapped__() is None
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert ranks.__wrapped__() is None
    monkeypatch.setenv("SLURM_NTASKS", "4")  # of a batch script that srun is to be used in
    assert ranks.__wrapped__() is None
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert ranks.__wrapped__() is None
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with refused("4 processes were started together, and it is not said how many on each machine"):
        ranks.__wrapped__()


HOW = ["run=outputs/toy2d", "nfe=4", "eta=1", "n=900", "quality=false", "device=cpu"]
HOW += ["batch_size=3"]
"""Three hundred chunks: enough to be in the middle of them."""


def launched(stack: ExitStack, cwd: Path, name: str, world: int = 2) -> list[Popen[str]]:
    """The command in so many processes, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    said = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": name}
    said |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    command = [script("sample"), *HOW, f"name={name}"]
    return [
        stack.enter_context(started(command, cwd, **said, RANK=str(k), LOCAL_RANK=str(k)))
        for k in range(world)
    ]


def some_are_there(parts: Path, processes: list[Popen[str]]) -> None:
    """Wait for a dozen chunks."""
    while not (parts.is_dir() and len(list(parts.glob("[0-9]*"))) > 12):
        assert all(each.poll() is None for each in processes)
        time.sleep(0.05)


def whole(cwd: Path, name: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(cwd / f"outputs/toy2d/samples/{name}" / SAMPLES)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_all_and_costs_nothing(victim: int, plane: Path) -> None:
    """The others end with a sentence; resumed by one process, the samples are those of one that
    was left alone, bit for bit."""
    cwd = plane.parent.parent
    name = f"killed{victim}"
    title = f"{name}-nfe4-eta1-seed0"
    parts = plane / "samples" / title / PARTS
    with ExitStack() as stack:
        processes = launched(stack, cwd, name)
        some_are_there(parts, processes)
        processes[victim].send_signal(signal.SIGKILL)
        code, _, err = finish(processes[1 - victim])
    assert code == 1 and "ended before its part was done: what was written stays" in err, err
    assert "Traceback" not in err
    there = len(list(parts.glob("[0-9]*")))
    assert 12 < there < 300
    for each in (name, "undisturbed"):
        code, _, err = typed("sample", *HOW, f"name={each}", cwd=cwd)
        assert code == 0, err
    one, two = whole(cwd, title), whole(cwd, "undisturbed-nfe4-eta1-seed0")
    assert len(one["x"]) == 900 and all(torch.equal(one[k], two[k]) for k in two)


@pytest.mark.slow
def test_a_killed_worker_of_a_command_costs_nothing(plane: Path) -> None:
    """Begun with devices=2: the first process does its own part, and says what is left."""
    cwd = plane.parent.parent
    title = "worker-nfe4-eta1-seed0"
    parts = plane / "samples" / title / PARTS
    with started([script("sample"), *HOW, "name=worker", "devices=2"], cwd) as process:
        some_are_there(parts, [process])
        os.kill(worker_of(process.pid), signal.SIGKILL)
        code, _, err = finish(process)
    assert code == 1 and "Traceback" not in err, err
    assert "was ended by SIGKILL before its part was done" in err, err
    left = 900 - 3 * len(list(parts.glob("[0-9]*")))
    assert 0 < left <= 450 and f"the same command makes the other {left}." in err, err
    for each in ("worker", "left_alone"):
        code, _, err = typed("sample", *HOW, f"name={each}", cwd=cwd)
        assert code == 0, err
    one, two = whole(cwd, title), whole(cwd, "left_alone-nfe4-eta1-seed0")
    assert all(torch.equal(one[k], two[k]) for k in two)


def worker_of(parent: int) -> int:
    """The process that another one has started for its work."""
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            known = each.joinpath("stat").read_text().rpartition(")")[2].split()
            if int(known[1]) == parent and b"spawn_main" in each.joinpath("cmdline").read_bytes():
                return int(each.name)
    raise AssertionError("there is none")


@pytest.mark.slow
def test_a_command_killed_with_its_processes_goes_on_with_others(plane: Path) -> None:
    """Begun with devices=2, and ended by torchrun."""
    cwd = plane.parent.parent
    title = "mixed-nfe4-eta1-seed0"
    parts = plane / "samples" / title / PARTS
    with started([script("sample"), *HOW, "name=mixed", "devices=2"], cwd) as process:
        some_are_there(parts, [process])
        os.kill(process.pid, signal.SIGKILL)
        finish(process)
    before = len(list(parts.glob("[0-9]*")))
    assert 12 < before < 300
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    command = [*torchrun, "--nproc-per-node=2", script("sample"), *HOW, "name=mixed"]
    with started(command, cwd) as process:
        code, out, err = finish(process)
    assert code == 0 and out.count("Samples are in") == 1, err
    code, _, err = typed("sample", *HOW, "name=single", cwd=cwd)
    assert code == 0, err
    one, two = whole(cwd, title), whole(cwd, "single-nfe4-eta1-seed0")
    assert all(torch.equal(one[k], two[k]) for k in two)
