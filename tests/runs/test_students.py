"""Students: runs that learn from another run, and what samples them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import sdegen as sg
from sdegen.data.items import split
from sdegen.data.sampler import InfiniteBatches
from sdegen.distill import GuidedOnce
from sdegen.files import read_header, read_tensors, write_tensors
from sdegen.runs.build import build, build_data
from sdegen.runs.folder import WEIGHTS, generating, load_run
from sdegen.runs.network import build_model
from sdegen.runs.students import PAIRS, as_sampled, as_student, in_rounds, teacher
from sdegen.runs.weights import begin, content_of
from sdegen.training import Objective
from sdegen.training.checkpoint import CHECKPOINT
from sdegen.training.objective import at_step
from sdegen.training.trainer import step_seed
from tests.cases import close, refused
from tests.configs import composed
from tests.processes import run
from tests.trainers import train_alone

TINY = (
    "train.steps=2",
    "train.batch_size=8",
    "train.log_every=1",
    "device=cpu",
    "name=x",
)


def trained(folder: Path, *overrides: str) -> Path:
    """A run of two steps in a folder."""
    train_alone(composed("train", *overrides, *TINY), folder)
    return folder


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: a flow of an MLP that is not told anything, steep enough to teach."""
    return trained(
        tmp_path_factory.mktemp("flow"),
        "experiment=toy2d",
        "sde=flow",
        "model=velocity",
        "loss=flow_matching",
        "net.width=16",
        "net.depth=1",
        "data.train.n=200",
        "data.test.n=200",
        "conditional=true",
        "evaluate.budgets=[20]",
        "train.warmup=0",
        "train.optimizer.lr=0.1",
    )


@pytest.mark.parametrize("more", ["task=colorize", "text=words"])
def test_a_student_is_told_nothing_that_its_teacher_is_not(flow: Path, more: str) -> None:
    with refused(f"has no {more.partition('=')[0]}: leave {more.partition('=')[0]} out"):
        as_student(composed("train", "experiment=distill/guided", f"teacher.run={flow}", more))


@pytest.mark.parametrize("kind", ["progressive", "consistency", "shortcut", "meanflow", "reflow"])
def test_a_student_is_its_teachers(flow: Path, kind: str, tmp_path: Path) -> None:
    """Its data, SDE, network and prediction; it begins with those weights and says what samples
    it; the run can be loaded and sampled."""
    more = ["teacher.pairs.n=20", "teacher.pairs.nfe=2"] if kind == "reflow" else []
    folder = trained(tmp_path, f"experiment=distill/{kind}", f"teacher.run={flow}", *more)
    mine, theirs = (read_header(each / WEIGHTS)["config"] for each in (folder, flow))
    assert mine["sde"] == theirs["sde"] and mine["data"] == theirs["data"]
    assert mine["teacher"]["content"] == content_of(flow)
    told = ["jump"] if kind in ("consistency", "shortcut", "meanflow") else []
    assert mine["net"].get("numbers", []) == told
    model = load_run(folder, [], "cpu").model
    assert model.flow_only == (kind in ("progressive", "reflow"))
    sampler = mine.get("sampler", {}).get("_target_", "")
    names = {"progressive": "Student", "reflow": ""}
    assert sampler.rpartition(".")[2] == names.get(kind, "Jump")
    assert (folder / PAIRS).is_file() == (kind == "reflow")


def test_a_student_begins_as_its_teacher(flow: Path, tmp_path: Path) -> None:
    """With a rate of 0 its weights are the teacher's, and numbers are silent."""
    folder = trained(
        tmp_path,
        "experiment=distill/shortcut",
        f"teacher.run={flow}",
        "train.optimizer.lr=0.0",
        "train.warmup=0",
    )
    mine, theirs = (read_tensors(each / WEIGHTS)[0] for each in (folder, flow))
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())
    x, y = torch.randn(4, 2), torch.zeros(4, dtype=torch.int64)
    a, b = (load_run(each, [], "cpu").model.given(y=y)(x, 0.5).x0 for each in (folder, flow))
    close(a, b)


def test_a_smaller_student_has_a_network_of_its_own(tmp_path: Path) -> None:
    """A quarter of its teacher's width, with wavelets; everything else is the teacher's, and any
    solver samples it. It cannot begin with the teacher's weights."""
    few = ("data.train.size=8", "data.train.stride=64", "data.test.size=8", "data.test.stride=64")
    base = trained(tmp_path / "base", "experiment=networks/adm", *few, "net.head_width=8")
    how = ("experiment=distill/slim", f"teacher.run={base}")
    folder = trained(tmp_path / "slim", *how)
    mine, theirs = (read_header(each / WEIGHTS)["config"] for each in (folder, base))
    assert mine["net"] == {**theirs["net"], "width": 8, "wavelets": True}
    assert theirs["net"]["width"] == 32 and mine["sde"] == theirs["sde"]
    assert "sampler" not in mine
    model = load_run(folder, [], "cpu").model
    assert any("resample" in name for name, _ in model.named_parameters())
    x = sg.sample(model, (1, 3, 8, 8), solver=sg.UniPC(), nfe=2)
    assert bool(x.isfinite().all())
    with refused("cannot begin with its teacher's weights: teacher.start=false"):
        trained(tmp_path / "x", *how, "teacher.start=true")
    with refused("teacher.net.channels=1 is given by the data"):
        trained(tmp_path / "x", *how, "+teacher.net.channels=1")


def test_what_a_teachers_network_has_not_is_refused(flow: Path, tmp_path: Path) -> None:
    with refused("wavelets=True is no setting of MLP, .*: say ~teacher.net.wavelets"):
        trained(tmp_path / "x", "experiment=distill/slim", f"teacher.run={flow}")


def test_rounds_teach_each_other(flow: Path, tmp_path: Path) -> None:
    """4 steps, then 2, each at the other's own levels, in folders of their own."""
    config = composed(
        "train",
        "experiment=distill/progressive",
        f"teacher.run={flow}",
        "teacher.rounds=[4,2]",
        "loss.inner=3",
        "loss.grid._target_=sdegen.walks.straight",
        *TINY,
    )
    parts = list(in_rounds(config, tmp_path))
    assert [folder.name for _, folder in parts] == ["4-steps", "2-steps"]
    assert [part["loss"]["inner"] for part, _ in parts] == [3, 2]
    for part, folder in parts:
        train_alone(part, folder)
    last = read_header(tmp_path / "2-steps" / WEIGHTS)["config"]
    assert last["teacher"]["run"] == str(tmp_path / "4-steps")
    assert len(last["sampler"]["times"]) == 3
    with refused("The teacher is a student itself, of 4 steps on its own walk.*loss.inner=2"):
        trained(
            tmp_path / "other",
            "experiment=distill/progressive",
            f"teacher.run={tmp_path / '4-steps'}",
            "loss.steps=3",
            "loss.inner=2",
            "loss.grid._target_=sdegen.walks.straight",
        )
    with refused("holds rounds, each a run of its own"):
        as_sampled(composed("sample", f"run={tmp_path}"), [])
    with refused("Rounds halve their steps"):
        list(in_rounds({**config, "teacher": {"run": "x", "rounds": [8, 2]}}, tmp_path))
    with refused("teacher.rounds are of loss=progressive"):
        list(in_rounds({**config, "loss": {}}, tmp_path))


def test_another_teacher_is_refused_when_a_run_goes_on(flow: Path, tmp_path: Path) -> None:
    """Known by its weights, wherever it lies."""
    mine = tmp_path / "teacher"
    mine.mkdir()
    tensors, header = read_tensors(flow / WEIGHTS)
    write_tensors(mine / WEIGHTS, tensors, header)
    how = ("experiment=distill/shortcut", f"teacher.run={mine}")
    trained(tmp_path / "student", *how)
    content = content_of(mine)
    changed = {name: value + 1 for name, value in tensors.items()}
    write_tensors(mine / WEIGHTS, changed, header)
    with refused("was made with teacher.content"):
        trained(tmp_path / "student", *how)
    with refused("has other weights"):
        teacher(str(mine), content)


def test_a_teacher_may_be_moved(flow: Path, tmp_path: Path) -> None:
    """It is known by its weights: what learned from it goes on where it lies elsewhere."""
    places = [tmp_path / "here", tmp_path / "there"]
    tensors, header = read_tensors(flow / WEIGHTS)
    for place in places:
        place.mkdir()
        write_tensors(place / WEIGHTS, tensors, header)
        trained(
            tmp_path / "student",
            "experiment=distill/consistency",
            f"teacher.run={place}",
            "loss.steps.over=2",
        )


def test_a_student_teaches_its_halves_alone(flow: Path, tmp_path: Path) -> None:
    """Whoever else would learn from it is told whose student it is; and nothing but its sampler
    takes it."""
    folder = trained(tmp_path / "a", "experiment=distill/consistency", f"teacher.run={flow}")
    for kind in ("shortcut", "progressive", "reflow"):
        with refused(f"is a student itself, which Jump samples.*take its own teacher, {flow}"):
            trained(tmp_path / "b", f"experiment=distill/{kind}", f"teacher.run={folder}")
    with refused("sdegen-evaluate is for models of a score or a flow.*is a student, which Jump"):
        generating(load_run(folder, [], "cpu"), "sdegen-evaluate")
    config = composed("sample", f"run={folder}", "name=dpmpp-karras-seed0")
    with refused("knows the way to the end alone: leave out walk"):
        as_sampled(config, ["walk=karras"])
    with refused("leave out solver"):
        as_sampled(config, ["solver.order=2"])
    own = as_sampled(config, [])
    assert own["name"] == "own-karras-seed0" and own["nfe"] == 4


def test_pairs_are_made_once_and_by_one_teacher(flow: Path, tmp_path: Path) -> None:
    how = ("experiment=distill/reflow", f"teacher.run={flow}", "teacher.pairs.nfe=2")
    trained(tmp_path, *how, "teacher.pairs.n=12")
    before = (tmp_path / PAIRS).read_bytes()
    trained(tmp_path, *how, "teacher.pairs.n=12")
    assert (tmp_path / PAIRS).read_bytes() == before
    with refused("train.validate_every = 1, but held-out data have no pairs"):
        trained(tmp_path, *how, "teacher.pairs.n=12", "train.validate_every=1")
    with refused("are another teacher's, or were made otherwise"):
        trained(tmp_path, *how, "teacher.pairs.n=14")


def test_samples_of_a_student_are_by_what_samples_it(flow: Path, tmp_path: Path) -> None:
    """On its own walk; another solver is refused by name, and other runs are as they were."""
    trained(tmp_path, "experiment=distill/progressive", f"teacher.run={flow}", "loss.steps=3")
    config = composed("sample", f"run={tmp_path}", "name=dpmpp-default-seed0")
    own = as_sampled(config, [f"run={tmp_path}"])
    assert own["name"] == "own-seed0" and own["walk"] is None
    assert own["solver"]["_target_"].endswith("Student") and len(own["solver"]["times"]) == 4
    with refused("is a student, which Student samples and nothing else: leave out solver"):
        as_sampled(config, ["solver=dpmpp"])
    with refused("never trained where its walk ends, which denoise=true would ask it at"):
        as_sampled({**config, "denoise": True}, ["denoise=true"])
    plain = composed("sample", f"run={flow}", "denoise=true")
    assert as_sampled(plain, []) == plain


def around(config: dict[str, Any]) -> dict[str, Any]:
    """The same experiment with its loss inside another one."""
    outer = {"_target_": "sdegen.losses.Uncertainty", "loss": config["loss"]}
    return {**config, "loss": outer}


def wrapped(folder: Path, *overrides: str) -> dict[str, Any]:
    """What a run of two steps says of itself, its loss inside another one."""
    train_alone(around(composed("train", *overrides, *TINY)), folder)
    config: dict[str, Any] = read_header(folder / WEIGHTS)["config"]
    return config


@pytest.mark.parametrize("kind", ["progressive", "consistency"])
def test_a_student_inside_another_loss_is_sampled_as_one(
    flow: Path, kind: str, tmp_path: Path
) -> None:
    """By what samples it alone, and not by DDIM; what it may not be asked stays refused."""
    mine = wrapped(tmp_path, f"experiment=distill/{kind}", f"teacher.run={flow}")
    name = mine["sampler"]["_target_"].rpartition(".")[2]
    assert name == {"progressive": "Student", "consistency": "Jump"}[kind]
    assert mine["evaluate"]["solvers"] == {"student": mine["sampler"]}
    config = composed("sample", f"run={tmp_path}", "name=dpmpp-karras-seed0")
    with refused("leave out solver"):
        as_sampled(config, ["solver=dpmpp"])
    if kind == "consistency":
        with refused("knows the way to the end alone: leave out walk"):
            as_sampled(config, ["walk=karras"])


def test_halves_are_taught_inside_another_loss(flow: Path, tmp_path: Path) -> None:
    """On the teacher's own levels, and on no others."""
    how = ("experiment=distill/progressive", "loss.grid._target_=sdegen.walks.straight")
    wrapped(tmp_path / "4", *how, f"teacher.run={flow}", "loss.steps=4")
    half = (*how, f"teacher.run={tmp_path / '4'}", "loss.inner=2")
    assert len(wrapped(tmp_path / "2", *half, "loss.steps=2")["sampler"]["times"]) == 3
    with refused("The teacher is a student itself, of 4 steps on its own walk"):
        wrapped(tmp_path / "3", *half, "loss.steps=3")


def test_what_a_student_inside_another_loss_is_told(flow: Path, tmp_path: Path) -> None:
    mine = wrapped(tmp_path, "experiment=distill/guided", f"teacher.run={flow}")
    assert mine["told"] == {"w": 2.5} and sg.load(tmp_path).conditions["w"] == 2.5


def test_guidance_in_one_call(flow: Path, tmp_path: Path) -> None:
    """A student that is told the scale; without another word it is told the middle one."""
    folder = trained(tmp_path, "experiment=distill/guided", f"teacher.run={flow}")
    model = sg.load(folder)
    assert model.conditions["w"] == 2.5 == GuidedOnce(model, {}, 1.0, 4.0).told["w"]
    y, x = torch.tensor([0, 1]), torch.randn(2, 2)
    before = model.nfe
    assert bool(model.given({"w": 3.0}, y=y)(x, 0.5).x0.isfinite().all())
    assert model.nfe == before + 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["experiment=distill/progressive"], "give teacher.run=outputs/"),
        (["experiment=distill/reflow"], "give teacher.run=outputs/"),
        (["experiment=distill/shortcut", "teacher.run=nowhere"], "nowhere"),
        (
            ["experiment=distill/shortcut", "teacher.start=1", "teacher.run=x"],
            "teacher.start must",
        ),
    ],
)
def test_refusals(overrides: list[str], words: str, tmp_path: Path) -> None:
    with refused(words):
        trained(tmp_path, *overrides)
    assert not list(tmp_path.iterdir())


def test_guidance_by_a_class_needs_one(flow: Path, tmp_path: Path) -> None:
    def plain(folder: Path) -> Any:
        return trained(
            folder,
            "experiment=toy2d",
            "net.width=8",
            "net.depth=1",
            "data.train.n=100",
            "data.test.n=100",
            "evaluate.budgets=[20]",
        )

    run = plain(tmp_path / "plain")
    with refused("this teacher takes no class"):
        trained(tmp_path / "x", "experiment=distill/guided", f"teacher.run={run}")


def test_learned_variances_as_an_experiment(tmp_path: Path) -> None:
    """A network of two heads is built, trained and sampled by what its second one says."""
    more = ("net.width=8", "evaluate.budgets=[2]")
    config = composed("train", "experiment=heads/iddpm", *more, *TINY)
    solvers = {"learned": config["evaluate"]["solvers"]["learned"]}
    train_alone({**config, "evaluate": {**config["evaluate"], "solvers": solvers}}, tmp_path)
    compared = read_header(tmp_path / WEIGHTS)["config"]["evaluate"]["solvers"]
    assert compared["learned"]["head"] == config["loss"]["head"]
    model = load_run(tmp_path, [], "cpu").model
    assert model.heads == 2
    solver = sg.solvers.LearnedVariance()
    y = torch.tensor([1, 2])
    assert bool(sg.sample(model.given(y=y), (2, 1, 8, 8), solver=solver, steps=2).isfinite().all())


@pytest.mark.slow
def test_two_processes_teach_as_one_would(flow: Path, tmp_path: Path) -> None:
    """Each has a teacher of its own: two steps of both are those of one process that takes their
    batches one after the other and the mean of the gradients."""
    steps, rate, size = 2, 0.1, 8
    code, _, err = run(
        "train",
        "experiment=distill/consistency",
        f"teacher.run={flow}",
        f"train.steps={steps}",
        f"train.batch_size={size}",
        "train.devices=2",
        "train.warmup=0",
        "train.schedule=constant",
        "train.optimizer._target_=torch.optim.SGD",
        f"train.optimizer.lr={rate}",
        "evaluate.budgets=[1]",
        "device=cpu",
        "name=two",
        cwd=tmp_path,
    )
    assert code == 0, err
    folder = tmp_path / "outputs" / "two"
    config = json.loads((folder / "config.json").read_text())
    data, _ = build_data(config)
    model = build_model(config, data.shape, data.classes).train()
    begin(model, config)
    loss = build(config["loss"])
    start = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [InfiniteBatches(len(data), size, 0, rank, 2) for rank in (0, 1)]
    loaders = [iter(DataLoader(data, batch_sampler=each)) for each in batches]
    weights = list(model.parameters())
    for step in range(steps):
        model.zero_grad()
        for rank, loader in enumerate(loaders):
            x0, given = split(next(loader))
            torch.manual_seed(step_seed(0, rank, step))
            (Objective(model, at_step(loss, step), True)(x0, given) / 2).backward()
        torch.nn.utils.clip_grad_norm_(weights, config["train"]["clip"])
        with torch.no_grad():
            for weight in weights:
                weight -= rate * (0 if weight.grad is None else weight.grad)
    found, moved = load_file(folder / CHECKPOINT), 0.0
    for name, value in model.state_dict().items():
        close(found[f"model.{name}"], value, rtol=1e-5, atol=1e-6)
        moved = max(moved, float((value - start[name]).abs().max()))
    assert moved > 1e-3  # or nothing was learned that could differ
