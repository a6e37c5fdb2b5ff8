"""Trackers: they have what metrics.jsonl has, once, however a run came to its end."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from lightning_fabric.loggers import CSVLogger

from sdegen.runs.build import build_trackers
from sdegen.training import CSV, TensorBoard, Wandb
from sdegen.training.trackers import Tracking, numbers
from tests.cases import refused
from tests.processes import TINY, typed
from tests.trainers import trainer


def until(folder: Path, step: int, *trackers: Any) -> None:
    """A run of twelve steps, a record every two and a checkpoint every five, that is killed."""
    run = trainer(folder, log_every=2)
    run.trackers = trackers
    for record in run.steps():
        if record.step == step:
            return


def told(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_table_is_of_metrics_jsonl(tmp_path: Path) -> None:
    """Killed after step 8, from the checkpoint of 5 on: 6 and 8 are not in it twice."""
    for last in (8, 12):
        until(tmp_path / "r", last, CSV())
        with (tmp_path / "r" / "tracking" / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        records = told(tmp_path / "r")
        assert [int(row["step"]) for row in rows] == list(range(2, last + 1, 2))
        for row, record in zip(rows, records, strict=True):
            assert {k: float(row[k]) for k in numbers(record)} == numbers(record)


def test_what_a_record_says_of_speed_and_memory(tmp_path: Path) -> None:
    until(tmp_path / "r", 12)
    for record in told(tmp_path / "r"):
        each = record["samples_per_second"] * record["seconds"]
        assert each == pytest.approx(2 * 16, rel=1e-6)
        assert 20 < record["memory"] < 1e6 and record["lr"] > 0


def test_tensorboard_has_no_point_twice(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "r"
    for last in (8, 12):
        until(folder, last, TensorBoard())
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    for name in ("loss", "grad_norm", "lr", "samples_per_second", "memory"):
        points = [(each.step, each.value) for each in found.Scalars(name)]
        expected = [(each["step"], pytest.approx(each[name])) for each in told(folder)]
        assert points == expected
    texts = found.Tensors("settings/text_summary")  # of the two starts
    assert [each.step for each in texts] == [1, 6]
    assert b'"batch_size": 16' in texts[0].tensor_proto.string_val[0]


class Fake:
    """wandb as far as it is used: what was told of each run, which the disk would have."""

    logged: ClassVar[list[tuple[str, int, str]]] = []
    config: ClassVar[dict[str, Any]] = {}

    def __init__(self, **how: Any) -> None:
        self.id = how["id"]
        assert how["project"] == "mine" and how["mode"] == "offline" and how["resume"] == "allow"
        self.config = SimpleNamespace(update=lambda params, **how: Fake.config.update(params))

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.extend((self.id, step, name) for name in values)

    def finish(self, **how: Any) -> None:
        assert how["exit_code"] == 0


def faked(patch: pytest.MonkeyPatch, init: Any = Fake) -> None:
    module = SimpleNamespace(init=init, Settings=lambda **how: how, Image=lambda path: path)
    patch.setattr("sdegen.training.loggers.import_module", lambda name: module)
    patch.setattr("sdegen.training.trackers.find_spec", lambda name: True)


@pytest.mark.parametrize("killed", [[8, 12], [8, 6, 12]])
def test_wandb_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: list[int]
) -> None:
    """However often it is killed: the second one of three has not come as far as the first."""
    faked(monkeypatch)
    monkeypatch.setattr(Fake, "logged", [])
    for last in killed:
        until(tmp_path / "r", last, Wandb("mine"))
    counts = Counter(Fake.logged)
    assert set(counts.values()) == {1} and len({run for run, *_ in counts}) == 1
    assert sorted(step for _, step, name in counts if name == "loss") == [2, 4, 6, 8, 10, 12]
    assert Fake.config["train"]["batch_size"] == 16


def test_wandb_is_told_what_a_killed_run_could_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked(monkeypatch)
    monkeypatch.setattr(Fake, "logged", [])
    until(tmp_path / "r", 8)
    until(tmp_path / "r", 12, Wandb("mine"))
    assert [s for _, s, name in Fake.logged if name == "loss"] == [2, 4, 6, 8, 10, 12]


def test_a_picture_is_shown_once_and_at_the_step_of_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked(monkeypatch)
    monkeypatch.setattr(Fake, "logged", [])
    for _ in range(2):
        tracking = Tracking([Wandb("mine")], tmp_path, 0, [], {})
        tracking.tell({"step": 2, "loss": 1.0})
        tracking.show(tmp_path / "a.png", 2)
        tracking.close("aborted")
    assert [(step, name) for _, step, name in Fake.logged] == [(2, "loss"), (2, "samples")]


def test_wandb_that_cannot_begin_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(**how: Any) -> None:
        raise OSError("no route to host")

    faked(monkeypatch, unreachable)
    with refused("logger=wandb cannot begin with mode = 'online': no route to host. logger.wandb"):
        until(tmp_path / "r", 2, Wandb(mode="online"))


class Broken(CSVLogger):
    """A logger whose disk is full from the second record on."""

    told = 0

    def log_metrics(self, *given: Any) -> None:
        self.told += 1
        if self.told > 1:
            raise RuntimeError("the disk is full")


def test_a_logger_that_fails_costs_a_warning(tmp_path: Path) -> None:
    """Training and the other loggers go on; it is told nothing more."""
    broken = Broken(tmp_path, name="", version="b")
    with pytest.warns(UserWarning, match="Broken is told nothing more, .*_metrics .*disk is full"):
        until(tmp_path / "r", 0, lambda *run: broken, CSV())
    assert len(told(tmp_path / "r")) == 6 and broken.told == 2
    with (tmp_path / "r" / "tracking" / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6


def test_what_is_missing_or_no_tracker_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused("logger.wandb.mode is offline, online or disabled, but it is 'cloud'"):
        Wandb(mode="cloud")
    for node, says in (
        ({"csv": 3}, "logger is one of its group, as logger=csv, or several, but logger.csv is 3"),
        ({"mine": {"_target_": "sdegen.training.TrainSettings"}}, "logger.mine is called with"),
    ):
        with refused(says):
            build_trackers({"logger": node, "packages": []})
    monkeypatch.setattr("sdegen.training.trackers.find_spec", lambda name: None)
    for kind, extra in ((TensorBoard, "track"), (Wandb, "wandb")):
        with refused(rf"needs the package {kind.__name__.lower()}: pip install 'sdegen\[{extra}"):
            kind()


def mine(folder: Path, step: int, records: Any) -> Any:
    """A tracker of one's own: any logger of Lightning Fabric."""
    return CSVLogger(folder, name="", version="mine")


def test_the_command_takes_several_and_shows_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    few = [f"~evaluate.solvers.{name}" for name in ("ddpm", "ddim", "heun", "euler_maruyama")]
    how = [*TINY, *few, "train.steps=4", "train.sample_every=2", "evaluate.budgets=[2]"]
    own = [f"+logger.mine={{_target_: {__name__}.mine, _partial_: true}}", "packages=[tests]"]
    code, _, err = typed("train", *how, "logger=[csv,tensorboard]", *own, cwd=tmp_path)
    assert code == 0, err
    folder = tmp_path / "outputs" / "toy2d"
    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    assert [each.step for each in found.Images("samples")] == [2, 4]
    for name in ("tracking", "mine"):
        with (folder / name / "metrics.csv").open() as file:
            assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]


@pytest.mark.slow
def test_wandb_itself_offline(tmp_path: Path) -> None:
    """What it keeps for ``wandb sync``, of a run that was killed and went on."""
    folder = tmp_path / "r"
    for last in (8, 12):
        until(folder, last, Wandb("mine"))
    runs = list((folder / "wandb").glob("offline-run-*"))
    assert len(runs) == 2 and len({path.name.split("-")[-1] for path in runs}) == 1
    assert all(list(path.glob("run-*.wandb")) for path in runs)
