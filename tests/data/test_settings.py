"""Data as configurations name them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from PIL import Image

from sdegen.data import (
    HubFolder,
    ImageShards,
    ImageZip,
    captioned_digits,
    cifar10,
    digits,
    emoji,
    mnist,
    moving_digits,
    photo_patches,
    toy,
)
from sdegen.data.toys import TOYS
from sdegen.runs.build import share_held_out
from tests.cases import ROOT

CONF = ROOT / "conf" / "data"


def shades(root: Path, names: Any) -> None:
    """Write one flat grey picture per name, of shade 10, 20, ... in the order of `names`."""
    for k, name in enumerate(names, 1):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 10 * k).save(root / name)


def test_every_group_is_tried_here() -> None:
    assert {file.stem for file in CONF.glob("*.yaml")} == {
        *TOYS,
        "digits",
        "photo_patches",
        "image_folder",
        "array_file",
        "bold_digits",
        "captioned_digits",
        "cifar10",
        "emoji",
        "hf_folder",
        "hf_stream",  # in test_streams.py
        "image_shards",
        "image_zip",
        "mnist",
        "moving_digits",
    }


@pytest.mark.parametrize("name", TOYS)
def test_the_configured_toys(name: str) -> None:
    conf = OmegaConf.load(CONF / f"{name}.yaml")
    for part, seed in (("train", 0), ("test", 1)):
        assert torch.equal(instantiate(conf[part]).x, toy(name, 20000, seed).x)


@pytest.mark.parametrize("draw", [digits, photo_patches])
def test_the_configured_pictures(draw: Any) -> None:
    conf = OmegaConf.load(CONF / f"{draw.__name__}.yaml")
    for part in ("train", "test"):
        assert torch.equal(instantiate(conf[part]).x, draw(part).x)


def test_the_configured_clips() -> None:
    conf = OmegaConf.load(CONF / "moving_digits.yaml")
    assert torch.equal(instantiate(conf.test).x, moving_digits("test", 500).x)
    conf.frames, conf.size, conf.train.n = 3, 12, 5
    assert instantiate(conf.train).shape == (1, 3, 12, 12)


def test_the_configured_files(tmp_path: Path) -> None:
    shades(tmp_path, ["a/x.png", "b/y.png"])
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2)), z=np.ones((4, 5)), y=np.array([0, 1, 2]))
    conf = OmegaConf.create(
        {
            "folder": OmegaConf.load(CONF / "image_folder.yaml"),
            "array": OmegaConf.load(CONF / "array_file.yaml"),
        }
    )
    for group, name in (("folder", "root"), ("array", "path")):
        assert OmegaConf.is_missing(conf[group], name)
    conf.folder.root, conf.folder.channels = str(tmp_path), 1
    conf.array.path, conf.array.key = str(tmp_path / "a.npz"), "x"
    conf.array.labels, conf.array.test.key, conf.array.test.labels = "y", "z", None
    for part in ("train", "test"):
        folder = instantiate(conf.folder[part])
        assert folder.shape == (1, 32, 32) and folder.classes == 2
    assert instantiate(conf.array.train).classes == 3
    assert instantiate(conf.array.test).shape == (5,)


FILES = {
    "cifar10": ({"path": "a.tar.gz"}, cifar10),
    "mnist": ({"root": "a"}, mnist),
    "image_zip": ({"path": "a.zip"}, ImageZip),
    "image_shards": ({"path": "a.tar"}, ImageShards),
    "hf_folder": ({"path": "a"}, HubFolder),
    "captioned_digits": ({}, captioned_digits),
    "emoji": ({"font": "a.ttf"}, emoji),
}


@pytest.mark.parametrize("name", FILES)
def test_the_configured_formats(name: str) -> None:
    """Every argument is one that its data set has, and the two parts are told apart as said."""
    given, make = FILES[name]
    conf = OmegaConf.create({"data": OmegaConf.load(CONF / f"{name}.yaml")})
    missing = {key for key in conf.data if OmegaConf.is_missing(conf.data, key)}
    assert missing == set(given) - {"font"}
    conf.data.update(given)
    plain: Any = OmegaConf.to_container(conf, resolve=True)
    described = plain["data"]
    for part in ("train", "test"):
        node = described.get(part, described["train"])
        assert get_object(node["_target_"]) is make
        inspect.signature(make).bind(**{k: v for k, v in node.items() if k != "_target_"})
    own = name in ("cifar10", "mnist", "captioned_digits")
    assert share_held_out(described) == (None if own else 0.1)
    if not own:
        described["test"] = {**described.get("test", described["train"]), "path": "other"}
        assert share_held_out(described) is None
