"""Weights that two processes share out: training is that of whole ones, and so are the files."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sdegen.training import TrainSettings
from sdegen.training.checkpoint import CHECKPOINT
from sdegen.training.engine import environment, launch, lost
from sdegen.training.shards import (
    all_finite,
    here,
    in_host,
    infinite_in,
    is_shard,
    like,
    take_step,
    whole,
)
from tests.cases import refused
from tests.processes import TINY, finish, run, script, started, typed


def test_what_is_not_shared_out_is_left_as_it_is() -> None:
    x = nn.Parameter(torch.ones(3))
    assert not is_shard(x) and whole(x) is here(x) is like(x, torch.zeros(3)) is x
    assert whole(None) is None and like(2.5, None) == 2.5
    kept = in_host({"x": x}, keep=True)
    assert torch.equal(kept["x"], torch.ones(3)) and not kept["x"].requires_grad
    assert in_host({"x": x}, keep=False) == {}


def test_what_is_meant_to_be_infinite_is_no_broken_weight() -> None:
    whole, inf = {"w": torch.ones(3), "n": torch.arange(2)}, torch.tensor([0.0, -torch.inf])
    masked = {**whole, "mask": inf}
    nothing, meant = frozenset[str](), infinite_in(whole, masked)
    assert meant == {"mask"} and infinite_in(whole) == nothing
    for states, infinite, good in (
        ([whole], nothing, 1),
        ([masked], nothing, 0),
        ([masked, {"module.mask": inf}], meant, 1),
        ([masked, {"w": inf}], meant, 0),
        ([masked | {"mask": inf * torch.nan}], meant, 0),
        ([whole, {"w": torch.tensor([0.0, torch.nan])}], meant, 0),
    ):
        assert float(all_finite(states, infinite)) == good


def test_settings_of_several_processes() -> None:
    for wrong, says in (
        ({"strategy": "deepspeed"}, "train.strategy must be one of auto, ddp, fsdp, not 'deep"),
        (
            {"strategy": "fsdp"},
            "train.strategy = 'fsdp' shares weights among processes, but",
        ),
        ({"num_nodes": 0}, "train.num_nodes must be a whole number >= 1, not 0"),
    ):
        with refused(says):
            TrainSettings(**wrong)
    assert TrainSettings(strategy="fsdp", devices=2).strategy == "fsdp"
    assert TrainSettings(strategy="fsdp", num_nodes=2).num_nodes == 2


FEW = [f"~evaluate.solvers.{name}" for name in ("ddpm", "ddim", "heun", "euler_maruyama")]
HOW = [*TINY, *FEW, "train.steps=6", "train.devices=2", "train.ema=[0.9,0.5]"]
HOW += ["train.sample_every=3", "train.validate_every=2", "train.keep_every=3"]


def checkpoint(folder: Path, name: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(folder / "outputs" / name / CHECKPOINT)
    return found


def apart(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """The most that two checkpoints of the same names, shapes and types differ by."""
    assert {k: (v.shape, v.dtype) for k, v in one.items()} == {
        k: (v.shape, v.dtype) for k, v in two.items()
    }
    return max(float((one[k].double() - two[k].double()).abs().max()) for k in one)


@pytest.mark.slow
def test_two_processes_with_halves_train_as_with_wholes(tmp_path: Path) -> None:
    """Weights, averages and the optimiser's state; stopped and gone on, by either."""

    def trained(name: str, strategy: str, steps: int = 6) -> None:
        more = ["train.checkpointing=true", "train.accumulate=2", f"train.strategy={strategy}"]
        how = [*HOW, *more, f"name={name}", f"train.steps={steps}"]
        code, _, err = run("train", *how, cwd=tmp_path)
        assert code == 0, err

    trained("ddp", "ddp")
    trained("fsdp", "fsdp")
    trained("again", "fsdp", steps=3)
    shutil.copytree(tmp_path / "outputs" / "again", tmp_path / "outputs" / "over")
    trained("again", "fsdp")
    trained("over", "ddp")
    ddp, fsdp = checkpoint(tmp_path, "ddp"), checkpoint(tmp_path, "fsdp")
    assert apart(ddp, fsdp) < 1e-6 and apart(ddp, checkpoint(tmp_path, "over")) < 1e-6
    assert apart(fsdp, checkpoint(tmp_path, "again")) == 0
    x, y = (
        load_file(tmp_path / f"outputs/{name}/progress/00000003.safetensors")["x"]
        for name in ("ddp", "fsdp")
    )
    assert (x - y).abs().max() < 1e-4


@pytest.mark.slow
def test_one_process_goes_on_with_what_two_have_left(tmp_path: Path) -> None:
    code, _, err = run("train", *HOW, "train.strategy=fsdp", cwd=tmp_path)
    assert code == 0, err
    alone = [*HOW, "train.devices=1", "train.strategy=auto", "train.steps=8"]
    code, _, err = typed("train", *alone, cwd=tmp_path)
    assert code == 0, err
    code, _, err = typed("train", *alone, "name=alone", cwd=tmp_path)
    assert code == 0, err
    two, one = checkpoint(tmp_path, "toy2d"), checkpoint(tmp_path, "alone")
    assert {k: (v.shape, v.dtype) for k, v in one.items()} == {
        k: (v.shape, v.dtype) for k, v in two.items()
    }
    assert float(two["optimizer.0.step"]) == 8


@pytest.mark.slow
def test_a_process_that_dies_ends_the_training_with_a_sentence(tmp_path: Path) -> None:
    """What was saved stays, and the run goes on from there."""
    from sdegen.files import read_header

    long = [*TINY, *FEW, "train.devices=2", "train.save_every=5", "name=long"]
    path = tmp_path / "outputs" / "long" / CHECKPOINT
    with started([script("train"), *long, "train.steps=50000"], tmp_path) as process:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.1)
        (other,) = children(process.pid)
        os.kill(other, signal.SIGKILL)
        code, _, err = finish(process)
    step = read_header(path)["step"]
    said = f"Another of the 2 processes has ended. The checkpoint of step {step} is the last good"
    assert code == 1 and said in err and "Traceback" not in err, err
    code, _, err = typed(
        "train", *long, f"train.steps={step + 1}", "train.devices=1", cwd=tmp_path
    )
    assert code == 0, err


def children(parent: int) -> list[int]:
    """The processes that run the same command for one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            after = stat.read_text().rpartition(")")[2].split()
            if int(after[1]) == parent and "sdegen-train" in (stat.parent / "cmdline").read_text():
                found.append(int(stat.parent.name))
    return found


def test_processes_that_were_started_are_those_that_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with refused("3 processes were started together, but train.devices x train.num_nodes = 2 x 1"):
        launch(TrainSettings(devices=2, device="cpu"))


def test_a_batch_script_without_srun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's numbers are of what the job may have: Fabric would wait for three others."""
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_NAME", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    job = {"PROCID": 0, "LOCALID": 0, "NODEID": 0, "NTASKS": 4, "NTASKS_PER_NODE": 2, "NNODES": 2}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    fabric = launch(TrainSettings(device="cpu"))
    assert fabric.world_size == 1 and not torch.distributed.is_initialized()
    assert not environment().creates_processes_externally
    with refused("train.num_nodes = 2, but this process is alone: start all by torchrun or srun"):
        launch(TrainSettings(device="cpu", num_nodes=2))
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert environment().creates_processes_externally


def test_an_optimiser_that_cannot_take_parts_is_one_sentence() -> None:
    """torch's own, with a group of one process."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist = torch.distributed
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for kind, good in ((torch.optim.AdamW, True), (torch.optim.Adafactor, False)):
            net = nn.Linear(3, 2)
            fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
            optimizer = kind(net.parameters())
            net(torch.ones(1, 3)).sum().backward()
            if good:
                take_step(optimizer)
                continue
            with refused("Adafactor cannot take a step with weights that are shared out"):
                take_step(optimizer)
    finally:
        dist.destroy_process_group()


def test_which_errors_say_that_a_process_is_gone() -> None:
    for said in ("[pair.cc:1] Connection closed by peer [127.0.0.1]", "Connection reset by peer"):
        assert lost(RuntimeError(said))
    assert not lost(RuntimeError("shapes do not fit")) and not lost(ValueError("Broken pipe"))
