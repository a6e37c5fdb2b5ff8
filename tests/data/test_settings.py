"""Data as configurations name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from sdegen.data import (
    digits,
    photo_patches,
    toy,
)
from sdegen.data.toys import TOYS
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
