"""Runs over another run: what trains alone is written, the base is found again and known by its
content, and a control is sampled as what restores is."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.data import class_labels, digits
from sdegen.files import read_header, read_tensors
from sdegen.losses import Superresolve
from sdegen.runs.card import CardSettings, make_card
from sdegen.runs.folder import WEIGHTS, content_of, load_run
from sdegen.runs.priors import samples_of
from sdegen.runs.samples import Maker
from sdegen.runs.settings import SampleSettings, read
from sdegen.runs.students import as_student
from sdegen.runs.weights import base_of
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import refused
from tests.configs import composed
from tests.processes import finish, run, script, started, typed
from tests.trainers import train_alone

TINY = (
    "train.batch_size=8",
    "train.log_every=1",
    "train.warmup=0",
    "device=cpu",
    "evaluate.budgets=[4]",
)


PRIOR = "data.train.sets.1.nfe=1"


def trained(folder: Path, *overrides: str, steps: int = 2) -> Path:
    """A run of a few steps in a folder."""
    train_alone(composed("train", *TINY, f"train.steps={steps}", *overrides), folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: a base, and a LoRA and a control over it."""
    home = tmp_path_factory.mktemp("runs")
    base = trained(home / "base", "experiment=digits", "net.width=8", "net.heads=2")
    for name in ("lora", "control"):
        trained(home / name, f"experiment=adapt/{name}", f"base.run={base}")
    return home


@pytest.mark.parametrize("name", ["lora", "control"])
def test_the_base_lies_in_its_own_run_alone(name: str, home: Path) -> None:
    base, _ = read_tensors(home / "base" / WEIGHTS)
    own, header = read_tensors(home / name / WEIGHTS)
    model = load_run(home / name, [], "cpu").model
    frozen = {n for n, w in model.named_parameters() if not w.requires_grad}
    assert own and not own.keys() & frozen
    checkpoint, about = read_tensors(home / name / CHECKPOINT)
    assert not any(key.partition(".")[2].removeprefix("module.") in frozen for key in checkpoint)
    assert about["frozen"] == header["frozen"]
    part = re.compile(r"\.base_layer|^net\.(?=net\.)")
    whole = {part.sub("", n): v for n, v in model.state_dict().items() if n not in own}
    assert whole.keys() <= base.keys() and all(torch.equal(v, base[n]) for n, v in whole.items())
    assert header["config"]["base"]["content"] == content_of(home / "base")
    assert about["identity"]["base"] == content_of(home / "base")


@pytest.mark.parametrize("name", ["lora", "control"])
def test_of_a_checkpoint_it_is_loaded_too(name: str, home: Path) -> None:
    one, two = (sg.load(home / name, weights=w).state_dict() for w in ("finished", "averaged"))
    assert one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def test_a_stopped_one_goes_on_to_the_bit(home: Path, tmp_path: Path) -> None:
    how = ("experiment=adapt/control", f"base.run={home / 'base'}")
    trained(tmp_path / "part", *how), trained(tmp_path / "part", *how, steps=4)
    trained(tmp_path / "whole", *how, steps=4)
    one, two = (read_tensors(tmp_path / n / CHECKPOINT)[0] for n in ("part", "whole"))
    assert all(torch.equal(one[n], two[n]) for n in one)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "strategy"), [("lora", "ddp"), ("control", "fsdp")])
def test_two_processes_that_are_killed_go_on_to_the_bit(
    name: str, strategy: str, home: Path, tmp_path: Path
) -> None:
    few = [f"~evaluate.solvers.{each}" for each in ("ddpm", "ddim", "heun", "euler_maruyama")]
    how = [*TINY, *few, f"experiment=adapt/{name}", f"base.run={home / 'base'}", "train.devices=2"]
    how += [f"train.strategy={strategy}", "train.steps=8", "train.save_every=2"]
    part = tmp_path / "outputs" / "part"
    with started([script("train"), *how, "name=part"], tmp_path) as process:
        while not (part / CHECKPOINT).is_file():
            assert process.poll() is None, finish(process)
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        finish(process)
    assert not (part / WEIGHTS).exists()
    for each in ("part", "whole"):
        code, _, err = run("train", *how, f"name={each}", cwd=tmp_path)
        assert code == 0, err
    one, two = (read_tensors(tmp_path / "outputs" / n / CHECKPOINT)[0] for n in ("part", "whole"))
    assert one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def test_the_base_is_found_where_both_went_and_refused_where_it_is_another(
    home: Path, tmp_path: Path
) -> None:
    shutil.copytree(home, tmp_path / "moved")
    header = read_header(home / "control" / WEIGHTS)
    assert header["config"]["base"]["run"] == str(home / "base")
    hidden = home / "elsewhere"
    (home / "base").rename(hidden)
    try:
        moved = sg.load(tmp_path / "moved" / "control").state_dict()
        with refused("This run stands on another that is not at"):
            sg.load(home / "control")
        trained(home / "base", "experiment=digits", "net.width=8", "net.heads=2", "train.seed=1")
        with refused("has other weights .* than the one that this run was begun over"):
            sg.load(home / "control")
        with refused("was made with base = "):
            trained(
                home / "control", "experiment=adapt/control", f"base.run={home / 'base'}", steps=4
            )
    finally:
        shutil.rmtree(home / "base", ignore_errors=True)
        hidden.rename(home / "base")
    here = sg.load(home / "control").state_dict()
    assert all(torch.equal(here[n], moved[n]) for n in here)


def settings(run: Path, *more: str) -> SampleSettings:
    few = ("n=3", "nfe=4", "device=cpu", "quality=false")
    return read(SampleSettings, composed("sample", f"run={run}", *few, *more))


def test_a_control_is_shown_held_out_images_and_without_is_its_base(home: Path) -> None:
    run, base = (load_run(home / name, [], "cpu") for name in ("control", "base"))
    made = Maker(settings(home / "control", "task=superresolve", "draws=1"), run)
    y = digits("test").y
    assert made.job is not None and made.job.images is not None
    picked = made.job.images
    at = [int((digits("test").x == x).flatten(1).all(1).nonzero()[0]) for x in picked]
    c = Superresolve(2)(picked, None).c
    told = made.model(0, 3)
    assert torch.equal(told.conditions["c"], c)
    assert torch.equal(told.conditions["y"], y[at])
    plain, theirs = (Maker(settings(home / r.folder.name), r)(0, 3) for r in (run, base))
    assert torch.equal(plain.tensors["x"], theirs.tensors["x"])


def test_full_fine_tuning_begins_with_the_base_and_is_whole(home: Path, tmp_path: Path) -> None:
    how = ("experiment=adapt/lora", "adapter=none", f"base.run={home / 'base'}")
    trained(tmp_path / "full", *how, "train.optimizer.lr=1e-12")
    base, own = (read_tensors(f / WEIGHTS)[0] for f in (home / "base", tmp_path / "full"))
    assert own.keys() == base.keys()
    assert all(torch.allclose(own[n], base[n], atol=1e-8) for n in base)


@pytest.mark.slow
def test_dreambooth_is_a_data_set(home: Path, tmp_path: Path) -> None:
    """By its command: a class more, of the letter's pictures and of samples of the base in turn,
    which are the same ones whenever they are made; the new class has a name."""
    how = ("experiment=adapt/dreambooth", f"base.run={home / 'base'}", "name=w", "device=cpu")
    few = ("train.steps=2", "train.batch_size=8", "train.warmup=0", "evaluate.budgets=[2]")
    some = ("data.train.sets.1.n=20", "data.train.sets.1.nfe=2", "train.log_every=1")
    keep = [f"~evaluate.solvers.{name}" for name in ("euler_maruyama", "ddpm", "heun", "dpmpp")]
    done = typed("train", *how, *few, *some, *keep, cwd=tmp_path)
    assert done.code == 0, done.err
    run = load_run(tmp_path / "outputs" / "w", [], "cpu")
    assert run.names == (*"0123456789", "W") and run.counts[10] == sum(run.counts[:10]) == 20
    done = typed(
        "sample", "run=outputs/w", "classes=[W]", "n=3", "nfe=2", "device=cpu", cwd=tmp_path
    )
    assert done.code == 0, done.err


def test_a_prior_is_what_the_run_makes(home: Path) -> None:
    """Of its classes in their shares, on the digits' values, by the seed alone."""
    prior = samples_of(str(home / "base"), 30, nfe=2, seed=4, levels=17)
    again = samples_of(str(home / "base"), 30, nfe=2, seed=4)
    run = load_run(home / "base", [], "cpu")
    assert torch.equal(prior.y, class_labels(30, run.counts)) and prior.classes == 10
    steps = (prior.x + 1) * 8
    assert torch.equal(steps, steps.round()) and prior.levels == 17 and not again.levels
    assert float((prior.x - again.x.clamp(-1, 1)).abs().max()) <= 1 / 16 + 1e-6
    x = sg.sample(run.model.given(y=prior.y), (30, 1, 8, 8), nfe=2, seed=4, eta=0)
    assert torch.allclose(again.x, x, atol=1e-5)
    with refused("n must be a whole number >= 1"):
        samples_of(str(home / "base"), 0)
    with refused("is for runs that generate, but .* was trained to restore"):
        samples_of(str(home / "control"), 3)


def test_what_does_not_fit_is_refused(home: Path, tmp_path: Path) -> None:
    base = f"base.run={home / 'base'}"
    for wrong, said in {
        ("adapter=lora",): "An adapter is of a run that is finished: give base.run",
        ("experiment=adapt/control", base, "task=none"): "is shown what a task shows",
        ("experiment=adapt/lora", base, "task=superresolve"): "by adapter=control alone",
        ("experiment=adapt/lora", f"base.run={home / 'control'}"): "is itself an adapter's",
        ("experiment=adapt/lora", base, "data=photo_patches"): "The base is of data",
        ("experiment=adapt/control", base, "task.augment=0.5"): "told no noise",
        ("experiment=adapt/lora", base, "adapter.targets=[nowhere]"): "No layer of the UNet",
        ("experiment=adapt/dreambooth", base, "adapter=lora", PRIOR): "Train all weights .adapter",
        ("experiment=adapt/lora", base, "adapter.rank=0"): "rank must be a whole number >= 1",
    }.items():
        with refused(said):
            trained(tmp_path / "x", *wrong)
    with refused("is an adapter over another run, and teaches nobody"):
        as_student(
            composed("train", "experiment=distill/shortcut", f"teacher.run={home / 'lora'}")
        )


def test_a_card_of_an_adapter_needs_its_base_beside_it(home: Path, tmp_path: Path) -> None:
    """It has what was learned alone, and no path of where it was made; its lines run where a
    folder of the base's name and weights is next to it, and give the run's samples."""
    out = tmp_path / "bold"
    make_card(CardSettings(str(home / "lora"), "cc0-1.0", None, None, str(out), []))
    card = (out / "README.md").read_text()
    assert content_of(home / "base") in card and "`base`" in card
    own, _ = read_tensors(home / "lora" / WEIGHTS)
    passed, about = read_tensors(out / WEIGHTS)
    assert passed.keys() == own.keys() and all(torch.equal(passed[n], own[n]) for n in own)
    assert f"{sum(each.numel() for each in own.values()):,} weights" in card
    assert str(home) not in card + str(about["config"]["base"])
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.S)
    here = dict[str, Any]()
    with refused("This run stands on another that is not at"):
        exec(lines.replace("path/to/this/folder", str(out)), here)
    shutil.copytree(home / "base", tmp_path / "base")
    exec(lines.replace("path/to/this/folder", str(out)), here)
    model = sg.load(home / "lora").given(y=0)
    assert torch.equal(here["x"], sg.sample(model, (16, 1, 8, 8), nfe=20, seed=0))


def test_a_card_of_a_control_says_its_task(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "control"
    make_card(CardSettings(str(home / "control"), "cc0-1.0", None, None, str(out), []))
    card = (out / "README.md").read_text()
    assert content_of(home / "base") in card and "task=... image=..." in card
    assert sg.sample(moved(out, home), (1, 1, 8, 8), nfe=2, seed=0).isfinite().all()


def test_a_base_is_the_first_place_of_its_content(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a bare name next to the card, or around the folder of its run, not where one works."""
    content, here = content_of(home / "base"), tmp_path / "here"
    other = shutil.copytree(home / "control", here / "base")  # of other weights
    monkeypatch.chdir(here)
    for place in (home / "card", home / "lora" / "card", home / "adapt" / "lora" / "card"):
        assert base_of({"run": "base", "content": content}, place) == home / "base"
    near = shutil.copytree(home / "base", tmp_path / "base")
    assert base_of({"run": "base", "content": content}, here / "card") == near
    with refused("has other weights"):
        base_of({"run": str(other), "content": content}, None)


def moved(card: Path, home: Path) -> Any:
    """The model of a card with its base brought next to it, of the first class."""
    shutil.copytree(home / "base", card.parent / "base")
    return sg.load(card).given(y=0)
