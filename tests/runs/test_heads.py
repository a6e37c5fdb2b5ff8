"""Runs that learn a variance beside another run's mean, and samples from an earlier time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.files import read_tensors
from sdegen.likelihood import discrete_elbo
from sdegen.runs.folder import WEIGHTS, load_run
from sdegen.runs.samples import Maker, shortened
from sdegen.runs.settings import SampleSettings, read
from sdegen.sde import TruncatedSDE
from sdegen.solvers import LearnedVariance, Residual
from tests.cases import normal, refused
from tests.configs import composed
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


def test_a_head_is_trained_beside_a_run(plane: Path, tmp_path: Path) -> None:
    """Its mean is the run's to the bit, it is loaded, sampled and measured."""
    folder = trained(tmp_path, *HEAD, f"teacher.run={plane}", *SMALL[4:])
    model, mean = load_run(folder, [], "cpu").model, load_run(plane, [], "cpu").model
    theirs, ours = (read_tensors(each / WEIGHTS)[0] for each in (plane, folder))
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
    folder = trained(tmp_path, "experiment=learned_coupling", *SMALL)
    assert load_run(folder, [], "cpu").model.flow_only
    assert not any("encoder" in name for name in read_tensors(folder / WEIGHTS)[0])


def test_the_hybrid_loss_of_the_experiment_remembers(tmp_path: Path) -> None:
    folder = trained(tmp_path, "experiment=iddpm", "net.width=8", "net.heads=2")
    saved = read_tensors(folder / "checkpoint.safetensors")[0]
    assert int(saved["loss.history.count"].sum()) == 2 * 8
