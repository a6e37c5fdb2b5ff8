"""Runs that are told captions of images that they are shown a part of: trained, and sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import sdegen as sg
from sdegen.data import gather
from sdegen.files import read_tensors, write_tensors
from sdegen.runs.build import build_data, build_task
from sdegen.runs.folder import Run, load_run
from sdegen.runs.restoring import Seen, seen_of
from sdegen.runs.samples import sample_run
from sdegen.runs.train import train_run
from tests.captioned import config_of, pictures, quiet, sampled
from tests.cases import close, refused, refused_with

TWICE = ("task=superresolve", "task.augment=0.5")
HOLE = ("task=inpaint", "task.size=0.5")


@pytest.fixture(scope="module", params=[TWICE, HOLE], ids=["superresolve", "inpaint"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run of a task, whose weights are all off zero."""
    folder: Path = tmp_path_factory.mktemp("told")
    more = ("train.validate_every=1", "data.held_out=0.4")
    config = config_of(pictures(folder / "data"), *request.param, *more)
    assert train_run(config, folder / "run", quiet).stopped_by == 0
    path, draws = folder / "run" / "model.safetensors", torch.Generator().manual_seed(0)
    tensors, header = read_tensors(path)
    for value in tensors.values():  # what a text says comes in by weights that begin at zero
        if value.is_floating_point():
            value += 0.2 * torch.randn(value.shape, generator=draws)
    write_tensors(path, tensors, header)
    return folder / "run"


def asked(run: Path, *more: str) -> dict[str, torch.Tensor]:
    """Samples that the command makes, whose task is the run's."""
    how = HOLE if "Inpaint" in load_run(run, [], "cpu").config["task"]["_target_"] else TWICE
    made = sample_run(sampled(run, *how, "draws=2", "n=3", *more), quiet)
    assert made is not None
    return read_tensors(made.folder / "samples.safetensors")[0]


def seen_by(found: Run) -> Seen:
    """What the run's task shows of three held-out images."""
    task = build_task(found.config["task"], ())
    assert task is not None
    return Seen.of(task, gather(build_data(found.config)[1], 3))


def by_hand(found: Run, texts: list[str], scale: float = 1.0, nfe: int = 2) -> torch.Tensor:
    """Two samples of each of three held-out images, told texts one by one."""
    seen, at = seen_by(found), torch.tensor([0, 0, 1, 1, 2, 2])
    assert found.text is not None
    told = {name: value[at] for name, value in found.text(texts).items()}
    model: Any = seen.told(found.model.given(**told), at)
    if scale != 1:
        model = sg.guidance.CFG(model, scale, without={"mask": False})
    if seen.hole is not None:
        model = sg.guidance.Known(model, seen.x0[at], ~seen.hole[at])
    x = sg.sample(model, (6, 1, 4, 4), solver=sg.DPMSolverPP(2), nfe=nfe, seed=0)
    return x if seen.hole is None else torch.where(seen.hole[at], x, seen.x0[at])


def test_images_are_told_their_own_captions(run: Path) -> None:
    found = load_run(run, [], "cpu")
    texts = list(gather(build_data(found.config)[1], 3).captions)
    assert len(set(texts)) > 1
    made = asked(run)
    close(made["x"], by_hand(found, texts), atol=1e-5)
    assert not torch.allclose(made["x"], by_hand(found, texts[1:] + texts[:1]), atol=1e-4)


def test_texts_that_are_given_are_one_for_each_image(run: Path) -> None:
    found = load_run(run, [], "cpu")
    texts = ["dark right", "left dark", "light"]
    made = asked(run, 'prompt=["dark right","left dark","light"]', "name=texts")
    assert made["y"].tolist() == [0, 0, 1, 1, 2, 2]
    close(made["x"], by_hand(found, texts), atol=1e-5)
    cut = asked(run, 'prompt=["dark right","left dark","light"]', "batch_size=4", "name=cut")
    close(cut["x"], made["x"], atol=1e-6)
    how = ["guidance=cfg", "guidance.scale=3", "nfe=4"]
    close(asked(run, "prompt=light", "name=one", *how)["x"], by_hand(found, ["light"] * 3, 3.0, 4))


def test_what_cannot_be_told_is_refused(run: Path, tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "grey.png")
    image = f"image={tmp_path / 'grey.png'}"
    for said, how in {
        "of 4 texts there are only 3 images": ['prompt=["dark","light","left","right"]'],
        "The word 'blue' is not among the 4 that are known": ["prompt=blue"],
        "the images have no captions: give prompt=": [image],
    }.items():
        with refused_with(said):
            asked(run, *how, "name=wrong")
    assert asked(run, image, "prompt=dark", "name=grey")["x"].shape == (2, 1, 4, 4)


def test_images_whose_captions_cannot_be_told_are_left_out(run: Path) -> None:
    found = load_run(run, [], "cpu")
    images, task = gather(build_data(found.config)[1], 3), build_task(found.config["task"], ())
    own = images.captions
    images.captions = ("blue", *own[1:])
    some = seen_of(task, images, 3, found.text)
    assert some is not None and some.said is not None
    assert len(some.x0) == 2 and set(some.said.texts) == set(own[1:])
    images.captions = ("blue",) * 3
    with refused("No caption of the held-out data can be told"):
        seen_of(task, images, 3, found.text)
