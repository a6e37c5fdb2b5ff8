"""Runs that learn a variance beside another run's mean, and samples from an earlier time."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.distill import fit_head
from sdegen.files import read_header, read_tensors
from sdegen.likelihood import discrete_elbo
from sdegen.networks import MLP
from sdegen.report.commands import command
from sdegen.runs.build import build
from sdegen.runs.chunks import SAMPLES
from sdegen.runs.folder import WEIGHTS, load_run
from sdegen.runs.heads import with_head, with_levels
from sdegen.runs.samples import Maker, shortened
from sdegen.runs.settings import SampleSettings, read
from sdegen.runs.students import as_sampled
from sdegen.sde import TruncatedSDE
from sdegen.solvers import LearnedVariance, Range, Residual, Square
from tests.cases import ROOT, close, normal, refused
from tests.configs import composed
from tests.processes import typed
from tests.trainers import train_alone

SMALL = (
    "net.width=8",
    "net.depth=1",
    "data.train.n=100",
    "data.test.n=100",
    "evaluate.budgets=[4]",
)
HEAD = (
    "experiment=heads/residual",
    "~head_net",
    "+head_net={_target_: sdegen.networks.MLP, width: 8, depth: 1}",
)

TINY = ("train.steps=2", "train.batch_size=8", "train.log_every=1", "device=cpu", "name=x")


def trained(folder: Path, *overrides: str) -> Path:
    """A run of two steps in a folder."""
    train_alone(composed("train", *overrides, *TINY), folder)
    return folder


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of moons, told a class."""
    folder = tmp_path_factory.mktemp("plane")
    return trained(folder, "experiment=toy2d", "conditional=true", *SMALL)


@pytest.fixture(scope="module")
def npr(plane: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a head beside that one."""
    folder = tmp_path_factory.mktemp("npr")
    return trained(folder, *HEAD, f"teacher.run={plane}", *SMALL[4:])


@pytest.fixture(scope="module")
def iddpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a mean and a variance."""
    folder = tmp_path_factory.mktemp("iddpm")
    return trained(folder, "experiment=heads/iddpm", "net.width=8", "net.heads=2")


def test_a_head_is_trained_beside_a_run(plane: Path, npr: Path) -> None:
    """Its mean is the run's to the bit, it is loaded, sampled and measured."""
    model, mean = load_run(npr, [], "cpu").model, load_run(plane, [], "cpu").model
    theirs, ours = (read_tensors(each / WEIGHTS)[0] for each in (plane, npr))
    for name, value in theirs.items():
        assert torch.equal(ours[name.replace("net.", "net.net.", 1)], value)
    y = torch.tensor([0, 1, 0])
    x = normal(3, 2).float()
    model, mean = model.given(y=y), mean.given(y=y)
    assert torch.equal(model(x, 0.3).eps, mean(x, 0.3).eps)
    assert not torch.equal(model(x, 0.3).more, torch.ones(3, 2))
    made = sg.sample(model, (3, 2), solver=LearnedVariance(Residual()), steps=2, seed=0)
    assert bool(made.isfinite().all())
    found = discrete_elbo(model, x, steps=2, variance=Residual(), seed=0)
    assert not found.failed


SAID = [
    shlex.split(line)[1:]
    for line in (ROOT / "docs" / "few-steps.md").read_text().splitlines()
    if "solver=learned_variance" in line and line.startswith("sdegen-sample")
]
"""The page's commands."""


@pytest.mark.parametrize("said", SAID, ids=lambda said: said[0].rpartition("/")[2])
def test_the_commands_of_the_page(said: list[str], request: pytest.FixtureRequest) -> None:
    """Samples are those of LearnedVariance with the head that the run was trained with."""
    name = said[0].rpartition("/")[2]
    folder: Path = request.getfixturevalue(name)
    head = {"npr": Residual(), "iddpm": Range()}[name]
    few = ["nfe=3", "n=4", "device=cpu", "quality=false"]
    command = [f"run={folder}", *(each for each in said[1:] if "nfe=" not in each), *few]
    assert said[1] == "solver=learned_variance" and said[2].startswith("nfe=")
    done = typed("sample", *command, cwd=folder)
    assert done.code == 0, done.err
    made = read_tensors(folder / "samples" / "learned_variance-default-nfe3-seed0" / SAMPLES)[0]
    run = load_run(folder, [], "cpu")
    model, shape = run.model.given(y=made["y"]), (4, *run.shape)
    want = sg.sample(model, shape, solver=LearnedVariance(head), nfe=3, noise=sg.Seeded(0))
    close(made["x"], want, rtol=1e-5, atol=1e-6)


def test_a_result_says_the_command_that_made_it(npr: Path) -> None:
    """With its head, which the command takes again."""
    config = as_sampled(composed("sample", f"run={npr}", "solver=learned_variance"), [])
    written = command("sample", {"run": str(npr), "solver": config["solver"]}, {"solver": "dpmpp"})
    assert written is not None
    again = composed("sample", *shlex.split(written)[1:])
    assert as_sampled(again, [])["solver"] == config["solver"]


def test_a_learned_variance_is_of_a_run_that_has_one(plane: Path, npr: Path) -> None:
    """And of its own head; a loss of one's own is told of."""

    def sampled(folder: Path, *said: str) -> Any:
        config = composed("sample", f"run={folder}", "solver=learned_variance", *said)
        return build(as_sampled(config, ["solver=learned_variance"])["solver"])

    assert sampled(npr, "solver.mean_eta=0.5") == LearnedVariance(Residual(), 0.5)
    other = "solver.head={{_target_: sdegen.solvers.{}}}"
    assert sampled(npr, other.format("Residual")) == LearnedVariance(Residual())
    with refused(f"the run in {plane} has none: train one, by experiment=heads/residual"):
        sampled(plane)
    with refused("was trained as Residual has it, not Square: leave out solver.head"):
        sampled(npr, other.format("Square"))
    theirs = {"model": {"heads": 2}, "loss": {"_target_": "mine.loss"}}
    config = composed("sample", f"run={npr}", "solver=learned_variance")
    with refused("does not say what its second output is: say 'solver.head="):
        with_head(config["solver"], theirs, npr)
    inside = {**theirs, "loss": {"loss": {"head": {"_target_": "sdegen.solvers.Square"}}}}
    assert build(with_head(config["solver"], inside, npr)) == LearnedVariance(Square())
    with refused("solver.head is 'sdegen.solvers.Range', but it is the node of a head"):
        sampled(npr, "solver.head=sdegen.solvers.Range")
    with refused("LearnedVariance has a head, Range.., Square.. or Residual.., .* it is None"):
        build(config["solver"])
    done = typed("sample", f"run={plane}", "solver=learned_variance", "nfe=3", cwd=npr)
    assert done.code == 1 and done.err.count("sdegen:") == 1 and "Traceback" not in done.err


@pytest.mark.parametrize("by", ["solvers", "report"])
def test_other_commands_know_the_head_too(npr: Path, plane: Path, by: str, tmp_path: Path) -> None:
    """What a training compares, and what a page shows; of a run without one both refuse."""
    if by == "solvers":
        more = (*HEAD, f"teacher.run={plane}", "evaluate.budgets=[2]")
        folder = trained(tmp_path / "x", *more, "+solver@evaluate.solvers.mine=learned_variance")
        solvers = read_header(folder / WEIGHTS)["config"]["evaluate"]["solvers"]
        assert solvers["mine"]["head"] == {"_target_": "sdegen.solvers.Residual"}
        with refused("has none: train one"):
            trained(tmp_path / "y", "experiment=toy2d", *SMALL,
                    "+solver@evaluate.solvers.mine=learned_variance")  # fmt: skip
        assert not (tmp_path / "y").exists()
        return
    how = ["solver@left=learned_variance", "nfe=2", f"out={tmp_path / 'page.html'}", "device=cpu"]
    done = typed("report", f"run={npr}", *how, cwd=tmp_path)
    assert done.code == 0 and "LearnedVariance" in (tmp_path / "page.html").read_text(), done.err
    done = typed("report", f"run={plane}", *how, cwd=tmp_path)
    assert done.code == 1 and "has none: train one" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize(
    ("experiment", "inside"), [("iddpm", "hybrid"), (HEAD, "head")], ids=["iddpm", "head"]
)
def test_a_heads_loss_is_weighted_as_others(
    plane: Path, tmp_path: Path, experiment: Any, inside: str
) -> None:
    """Its run is sampled by the head that is inside."""
    loss = ["loss=uncertain", f"loss@loss.loss={inside}"]
    if experiment == "iddpm":
        own = ["experiment=heads/iddpm", "net.width=8", "net.heads=2"]
    else:
        own = [*experiment, f"teacher.run={plane}", "evaluate.budgets=[2]"]
    folder = trained(tmp_path / "x", *own, *loss)
    config = read_header(folder / WEIGHTS)["config"]
    assert config["evaluate"]["solvers"]["learned"]["head"] == config["loss"]["loss"]["head"]


def test_levels_are_those_of_the_data_that_the_bound_is_of() -> None:
    """Range alone is trained on the bound, and data that are spread have no values."""
    loss = composed("train", "experiment=heads/iddpm", "loss=uncertain", "loss@loss.loss=hybrid")
    assert with_levels(loss["loss"], 17)["loss"]["levels"] == 17
    assert with_levels(loss["loss"], 0)["loss"]["levels"] is None
    loss = composed("train", "experiment=heads/iddpm")["loss"]
    square = {**loss, "head": {"_target_": "sdegen.solvers.Square"}}
    spread = {"_target_": "sdegen.losses.dequantised", "levels": 17, "loss": loss}
    assert with_levels(loss, 17)["levels"] == 17 and with_levels(square, 17)["levels"] is None
    assert with_levels(spread, 17) == {**spread, "loss": {**loss, "levels": None}}
    assert with_levels({**loss, "levels": None}, 17)["levels"] is None


def test_a_class_is_no_head() -> None:
    with refused("LearnedVariance has a head, .* but it is Residual"):
        LearnedVariance(Residual)  # type: ignore[arg-type]
    mean = sg.ScoreModel(MLP(2, width=8, depth=1), sg.VPSDE())
    for head in (Range, Square):
        with refused(f"fit_head has a head, .* but it is {head.__name__}"):
            fit_head(mean, head, normal(9, 2), 1, net=MLP(2, width=8))  # type: ignore[arg-type]
    with refused("'learned_variance' is a solver of a run or a file, .*LearnedVariance"):
        sg.sample(mean, (2, 2), solver="learned_variance", steps=2)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "give teacher.run"),
        (("teacher.run={plane}", "teacher.start=false"), "leave out teacher.start=false"),
    ],
)
def test_a_head_without_its_run_is_refused(
    plane: Path, tmp_path: Path, more: Any, words: str
) -> None:
    said = [each.replace("{plane}", str(plane)) for each in more]
    with refused(words):
        trained(tmp_path, *HEAD, *said)
    assert not list(tmp_path.iterdir())


def settings(run: Path, **more: Any) -> SampleSettings:
    config = composed("sample", f"run={run}", "nfe=4", "device=cpu", "name=x")
    return read(SampleSettings, {**config, **more})


def test_samples_begin_where_they_are_told_to(plane: Path) -> None:
    """With a Gaussian of the training data's moments, for all chunks alike."""
    asked = settings(plane, truncate=0.4, n=6)
    run = shortened(load_run(plane, [], "cpu"), asked)
    assert isinstance(run.model.sde, TruncatedSDE) and run.model.sde.T == 0.4
    maker = Maker(asked, run)
    whole, part = maker(0, 6).tensors["x"], maker(4, 2).tensors["x"]
    assert torch.allclose(whole[4:], part, atol=1e-5) and bool(whole.isfinite().all())
    assert shortened(run, settings(plane)) is run


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"truncate": 1.5}, "ends within"),
        ({"truncate": 1e-4}, "ends within"),
        ({"truncate": 0.4, "task": {"_target_": "sdegen.losses.Inpaint"}}, "begins with images"),
    ],
)
def test_a_time_that_is_none_is_refused(plane: Path, more: Any, words: str) -> None:
    with refused(words):
        shortened(load_run(plane, [], "cpu"), settings(plane, **more))


def test_a_learned_coupling_is_a_run(tmp_path: Path) -> None:
    """Whose encoder is not among its weights."""
    folder = trained(tmp_path, "experiment=flows/learned_coupling", *SMALL)
    assert load_run(folder, [], "cpu").model.flow_only
    assert not any("encoder" in name for name in read_tensors(folder / WEIGHTS)[0])


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("data=digits", "net=unet", "net.width=8"), "of vectors .b, 2., but the data are .2, 1"),
        (("+loss.couple={_target_: sdegen.losses.MinibatchOT}",), "couple.*It takes .encoder"),
    ],
)
def test_a_coupling_that_cannot_be_learned_is_refused(
    tmp_path: Path, said: Any, words: str
) -> None:
    """In a sentence, before there is a folder."""
    done = typed("train", "experiment=flows/learned_coupling", *said, *TINY, cwd=tmp_path)
    assert done.code == 1 and "Traceback" not in done.err, done.err
    assert re.search(words, done.err), done.err
    assert not list(tmp_path.rglob("*.safetensors"))


def test_the_hybrid_loss_of_the_experiment_remembers(iddpm: Path) -> None:
    saved = read_tensors(iddpm / "checkpoint.safetensors")[0]
    assert int(saved["loss.history.count"].sum()) == 2 * 8
