"""Data of a run: what is trained on, what is held out, and what is never mixed."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sdegen as sg
import sdegen.data
from sdegen.data import ImageFolder, class_counts, gather, hold_out, moments
from sdegen.files import write_tensors
from sdegen.networks import UNet
from sdegen.runs.begun import as_begun, as_recorded
from sdegen.runs.build import build_data, build_split, share_held_out
from sdegen.runs.folder import WEIGHTS, load_run, quality_of
from sdegen.runs.network import build_model
from sdegen.runs.train import listed
from sdegen.training import Trainer, TrainSettings
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import refused


def array(path: Path, **more: Any) -> dict[str, Any]:
    """A configuration for the data of a file, as conf/data/array_file.yaml has it."""
    node = {"_target_": "sdegen.data.from_file", "path": str(path)}
    return {
        "data": {"held_out": 0.1, "train": node, "test": dict(node), **more},
        "packages": [],
        "conditional": False,
    }


def folder(root: Path, **how: Any) -> dict[str, Any]:
    """The same for a folder of images."""
    node = {"_target_": "sdegen.data.ImageFolder", "root": str(root), "size": 4, "channels": 1}
    node |= {"background": "white"}
    data = {"held_out": 0.1, "train": {**node, "flip": False, "crop": "centre", **how}}
    return {"data": {**data, "test": node}, "packages": [], "conditional": False}


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """A file of 0, 1, ..., 49."""
    np.save(tmp_path / "x.npy", np.arange(50.0)[:, None])
    return tmp_path / "x.npy"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Ten images in each of two classes, each of another shade, bright on the left."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(10):
            pixels = np.full((6, 8), 10 * k + 100 * (name == "b"), np.uint8)
            pixels[:, :4] += 40
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    return tmp_path


def values(data: Any) -> list[float]:
    return data.x.flatten().tolist()


def test_a_tenth_is_held_out_where_nothing_else_is_named(numbers: Path) -> None:
    config = array(numbers)
    train, test = build_data(config)
    assert len(train) == 45 and len(test) == 5
    assert sorted([*values(train), *values(test)]) == list(range(50))
    # Whoever asks, a run that goes on or one that is sampled, gets the same.
    assert values(build_split(config, "test")) == values(test)
    assert values(build_split(config, "train")) == values(train)
    assert share_held_out(config["data"]) == 0.1
    config["data"]["held_out"] = 0.5
    assert len(build_split(config, "test")) == 25


def test_what_is_named_is_held_out_whole(numbers: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.arange(100.0, 107.0)[:, None])
    other = {"_target_": "sdegen.data.from_file", "path": str(tmp_path / "other.npy")}
    config = array(numbers, test=other)
    train, test = build_data(config)
    assert values(train) == list(range(50)) and values(test) == list(range(100, 107))
    assert share_held_out(config["data"]) is None


def test_without_a_share_what_is_trained_on_is_measured_by(numbers: Path) -> None:
    for more in ({"held_out": None}, {"held_out": None, "test": None}):
        train, test = build_data(array(numbers, **more))
        assert values(train) == values(test) == list(range(50))


def test_data_of_ones_own_may_leave_test_out(numbers: Path) -> None:
    config = array(numbers)
    for more in ({}, {"test": None}):
        config["data"] = {"train": config["data"]["train"], **more}
        assert [len(each) for each in build_data(config)] == [45, 5]
    # A test that is the same data by intention, as runs before had it, stays so.
    config["data"] = {"train": config["data"]["train"], "test": dict(config["data"]["train"])}
    assert [len(each) for each in build_data(config)] == [50, 50]


def test_shares_that_cannot_be_are_refused(numbers: Path, tmp_path: Path) -> None:
    with refused("data.held_out=2: share must lie between 0 and 1"):
        build_data(array(numbers, held_out=2))
    np.save(tmp_path / "one.npy", np.zeros((1, 2)))
    with refused("A single item cannot .* data.held_out=null"):
        build_data(array(tmp_path / "one.npy"))
    with refused("conditional=true, but the data have no classes: say conditional=false"):
        build_data({**array(numbers), "conditional": True})


def test_the_only_image_of_a_class_is_trained_on(images: Path, tmp_path: Path) -> None:
    """Which a folder of nothing else cannot be trained without."""
    few = tmp_path / "few"
    for name in ("a", "b"):
        (few / name).mkdir(parents=True)
        (images / name / "0.png").rename(few / name / "0.png")
    with refused("cannot be trained on and held out, .* data.held_out=null"):
        build_data(folder(few))
    config = folder(few)
    config["data"]["held_out"] = None
    assert [class_counts(each) for each in build_data(config)] == [[1, 1]] * 2
    (images / "a" / "1.png").rename(few / "a" / "1.png")
    assert [class_counts(each) for each in build_data(folder(few))] == [[1, 1], [1, 0]]


def test_images_without_classes_cannot_be_conditional(images: Path, tmp_path: Path) -> None:
    """Of whatever kind: what has no classes is refused before anything is trained."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(images / "a" / "0.png", "0.png")
        archive.write(images / "a" / "1.png", "1.png")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(images / "a" / "0.png", "0.png")
        tar.add(images / "a" / "1.png", "1.png")
    for n, node in (
        (10, {"_target_": "sdegen.data.ImageFolder", "root": str(images / "a"), "size": 4}),
        (2, {"_target_": "sdegen.data.ImageZip", "path": str(tmp_path / "a.zip"), "size": 4}),
        (2, {"_target_": "sdegen.data.ImageShards", "path": str(tmp_path / "a.tar"), "size": 4}),
    ):
        config: dict[str, Any] = {"data": {"train": node}, "packages": [], "conditional": True}
        with refused("conditional=true, but the data have no classes: say conditional=false"):
            build_data(config)
        assert [len(each) for each in build_data({**config, "conditional": False})] == [n - 1, 1]


def test_data_in_two_parts_are_read_once(numbers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    from_file = sdegen.data.from_file

    def counted(path: str) -> Any:
        read.append(path)
        return from_file(path)

    monkeypatch.setattr(sdegen.data, "from_file", counted)
    build_data(array(numbers))
    assert read == [str(numbers)]


def test_held_out_images_are_neither_flipped_nor_cropped(images: Path) -> None:
    train, test = build_data(folder(images, flip=True, crop="random"))
    assert isinstance(train, ImageFolder) and train.flip and train.crop
    assert not test.flip and not test.crop and train.classes == test.classes == 2
    assert [int((test.y == k).sum()) for k in (0, 1)] == [1, 1]
    still = ImageFolder(images, 4, 1)
    for (x, _), file in zip(test, test.files, strict=True):
        assert torch.equal(x, still[still.files.index(file)][0])
    assert not set(train.files) & set(test.files)
    assert moments(train) == moments(hold_out(still)[0])


def begin(tmp_path: Path, data: dict[str, Any]) -> None:
    """A checkpoint of a run on these data."""
    write_tensors(tmp_path / CHECKPOINT, {"x": torch.zeros(1)}, {"identity": {"data": data}})


def test_a_run_from_before_goes_on_with_all_of_its_data(images: Path, tmp_path: Path) -> None:
    """Its checkpoint knows nothing of held-out parts and backgrounds."""
    config = folder(images)
    assert as_begun(config, tmp_path) == config
    node = {"_target_": "sdegen.data.ImageFolder", "root": str(images), "size": 4, "channels": 1}
    begin(tmp_path, {"train": node, "test": node})
    with pytest.warns(UserWarning, match="was begun when no part .* was held out, and transp"):
        data = as_begun(config, tmp_path)["data"]
    assert data == {name: {**node, "background": None} for name in ("train", "test")}
    train, test = build_data({**config, "data": data})
    assert len(train) == len(test) == 20 and train.background is None
    # What was asked for otherwise stays, and is refused by its name.
    with pytest.warns(UserWarning, match="goes on so"):
        flipped = as_begun(folder(images, flip=True), tmp_path)["data"]
    assert flipped["train"]["flip"] is True
    begin(tmp_path, data)  # of the run that went on, which goes on once more
    with pytest.warns(UserWarning, match="transparency was dropped: it goes on so"):
        assert as_begun(config, tmp_path)["data"] == data
    begin(tmp_path, config["data"])
    assert as_begun(config, tmp_path) == config


def test_nothing_is_said_of_transparency_where_there_are_no_images(
    numbers: Path, tmp_path: Path
) -> None:
    node = {"_target_": "sdegen.data.from_file", "path": str(numbers)}
    begin(tmp_path, {"train": node, "test": node})
    with pytest.warns(UserWarning, match="held out: it goes on so"):
        assert as_begun(array(numbers), tmp_path)["data"] == {"train": node, "test": node}
    named = {"held_out": 0.1, "train": node, "test": {**node, "path": "other"}}  # nothing is new
    data = as_begun({"data": named}, tmp_path)["data"]
    assert data == {"train": node, "test": named["test"]}


def test_images_of_ones_own_data_are_on_what_their_run_says(images: Path, tmp_path: Path) -> None:
    """A configuration of one's own need not name a background, and then it is white, today."""
    node = {"_target_": "sdegen.data.ImageFolder", "root": str(images), "size": 4, "channels": 1}
    mine: dict[str, Any] = {"data": {"train": node, "test": {"of": [dict(node)]}}}
    data = as_begun(mine, tmp_path)["data"]
    white = {**node, "background": "white"}
    assert data == {"train": white, "test": {"of": [white]}}
    assert as_recorded({"data": data})["data"] == data
    begin(tmp_path, data)
    assert as_begun(mine, tmp_path)["data"] == data


@pytest.mark.parametrize("recorded", [{}, {"background": "white"}, {"background": "#000000"}])
def test_a_run_is_measured_by_the_images_that_it_was_trained_on(
    tmp_path: Path, recorded: dict[str, Any]
) -> None:
    """Transparent pixels, of colour 200: the old code took the colour, a run of today what is
    behind it; sdegen-sample's data and sdegen-evaluate's are of the weights' configuration."""
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., :3] = 200
    for k in range(8):
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    node = {"_target_": "sdegen.data.ImageFolder", "root": str(tmp_path), "size": 4, **recorded}
    config: dict[str, Any] = {
        "net": {"_target_": "sdegen.networks.UNet", "width": 8, "heads": 1},
        "sde": {"_target_": "sdegen.VPSDE"},
        "model": {},
        "data": {"train": node, "test": node},
        "packages": [],
        "conditional": False,
    }
    model = build_model(config, (3, 4, 4), 0)
    about = {"config": config, "shape": [3, 4, 4], "classes": 0}
    write_tensors(tmp_path / WEIGHTS, model.state_dict(), about)
    run = load_run(tmp_path, [], "cpu")
    level = {"white": 255, "#000000": 0}.get(recorded.get("background", ""), 200)
    want = torch.full((8, 3, 4, 4), level / 127.5 - 1)
    for split in ("train", "test"):
        assert torch.allclose(gather(build_split(run.config, split)).x, want)
    quality = quality_of(tmp_path, run.config)
    assert quality.distances(want)[1] < 1e-6 < 0.1 < quality.distances(want - 0.3)[1]


def test_classes_are_said_by_name() -> None:
    assert listed([1200, 3], ["cat", "dog"]) == "cat (1,200), dog (3)"
    assert listed([5, 0, 2], []) == "0 (5), 1 (0), 2 (2)"
    assert listed([1] * 5, [], most=2) == "0 (1), 1 (1), and 3 more"


def test_training_on_flips_and_crops_resumes_bit_for_bit(images: Path, tmp_path: Path) -> None:
    train, _ = build_data(folder(images, flip=True, crop="random"))

    def run(name: str, *stops: int) -> dict[str, Any]:
        for steps in stops:
            torch.manual_seed(0)
            model = sg.ScoreModel(UNet(1, width=4, heads=2), sg.VPSDE(), "edm")
            settings = TrainSettings(steps=steps, batch_size=7, device="cpu", workers=0)
            (tmp_path / name).mkdir(exist_ok=True)
            trainer = Trainer(
                model,
                train,
                sg.dsm_loss,
                lambda weights: torch.optim.SGD(weights, lr=0.1),
                settings,
                tmp_path / name,
            )
            list(trainer.steps())
        return model.state_dict()

    whole, parts = run("whole", 6), run("parts", 2, 6)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
