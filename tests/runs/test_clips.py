"""Runs of clips: their network from a configuration, pictures, animations, hidden frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sdegen.networks import DiT, UNet, Video
from sdegen.runs.exports import refuse_export, save_gif, tiled
from sdegen.runs.network import build_model
from sdegen.runs.pictures import drawable, picture, shown
from sdegen.runs.restoring import draw
from tests.cases import normal, refused
from tests.configs import composed
from tests.processes import typed


def test_a_configuration_makes_a_network_of_clips() -> None:
    config = composed("train", "experiment=video/moving_digits", "sigma_data=0.4")
    model = build_model(config, (1, 8, 16, 16), 10)
    assert isinstance(model.net, Video) and isinstance(model.net.net, UNet)
    assert model.net.net.channels == 1 and model(normal(2, 1, 8, 16, 16), 0.5).x0.ndim == 5

    wide = ["conditional=true", "net@net.images=dit", "net.images.width=16", "net.images.heads=2"]
    config = composed(
        "train", "experiment=video/moving_digits", "task=extend", "sigma_data=1", *wide
    )
    net = build_model(config, (3, 4, 8, 8), 10).net
    assert isinstance(net, Video) and isinstance(net.net, DiT)
    assert net.net.conditioning.classes == 10 and net.net.beside == 3


def test_a_network_of_clips_is_refused_for_images() -> None:
    config = composed("train", "experiment=video/moving_digits", "sigma_data=1")
    with refused(r"expected clips \(b, 1, f, H, W\)"):
        build_model(config, (1, 8, 8), 0)(normal(2, 1, 8, 8), 0.5)


def test_a_clip_is_a_row_of_a_picture(tmp_path: Path) -> None:
    from PIL import Image

    x = torch.full((12, 1, 5, 4, 4), -1.0)
    x[1, 0, 2] = 1.0
    some = shown(x, torch.zeros(12, dtype=torch.int64))
    assert drawable(x) and not drawable(x.expand(-1, 2, -1, -1, -1))
    assert some.x.shape == (50, 1, 4, 4) and some.columns == 5  # ten clips
    assert some.x[7].min() == 1 and some.x.sum() == 16 * (1 - 49)
    picture(some, tmp_path / "samples.png", "clips")
    with Image.open(tmp_path / "samples.png") as opened:
        wide, high = opened.size
    assert high > 1.5 * wide  # ten rows of five


def test_what_became_of_hidden_frames_is_drawn(tmp_path: Path) -> None:
    x0 = normal(3, 1, 4, 8, 8).float()
    draw(tmp_path / "images.png", "two clips", x0, {"seen": x0, "sample": -x0})
    assert (tmp_path / "images.png").is_file()


def test_an_animation_has_every_frame_of_every_clip(tmp_path: Path) -> None:
    from PIL import Image, ImageSequence

    x = torch.full((3, 1, 6, 4, 4), -1.0)
    for k in range(6):
        x[2, 0, k, k % 4, 1] = 1.0 if k < 4 else 0.0
    save_gif(x, None, [0, 2], tmp_path)  # the second has not arrived
    with Image.open(tmp_path / "samples.gif") as opened:
        shots = [np.array(each.convert("L")) for each in ImageSequence.Iterator(opened)]
    assert len(shots) == 6 and shots[0].shape == (6 * 4, 2 * 6 * 4)
    for k, shot in enumerate(shots):
        row, column = (1 + k % 4) * 4, (6 + 1 + 1) * 4
        assert abs(int(shot[row + 1, column + 1]) - (255 if k < 4 else 128)) < 6
        assert shot[4:20, 4:20].max() < 6
    (tmp_path / "samples.gif").unlink()
    save_gif(x, None, [], tmp_path)
    assert not (tmp_path / "samples.gif").exists()
    assert tiled(normal(5, 3, 2, 2).float()).shape == (2 * 4 * 4, 3 * 4 * 4, 3)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        ("gif", [1, 8, 8], "for clips"),
        ("png", [1, 8, 8, 8], "for images"),
        ("gif", [2, 4, 8, 8], "1 or 3"),
    ],
)
def test_formats_are_of_what_they_show(name: str, shape: list[int], said: str) -> None:
    refuse_export(["gif"], [3, 4, 8, 8]), refuse_export(["png", "npz"], [3, 8, 8])
    with refused(said):
        refuse_export([name], shape)


@pytest.mark.slow
def test_commands_of_clips_run(tmp_path: Path) -> None:
    few = ["train.steps=2", "train.batch_size=4", "data.train.n=40", "data.test.n=20"]
    few += ["evaluate.budgets=[2]", "device=cpu"]
    done = typed("train", "experiment=video/moving_digits", *few, cwd=tmp_path)
    assert done.code == 0, done.err
    run = tmp_path / "outputs" / "video" / "moving_digits"
    assert (run / "samples-dpmpp.png").is_file() and (run / "trajectory.png").is_file()
    of_run = [f"run={run}", "n=3", "nfe=2", "device=cpu"]
    told = ["task=extend", "task.known=5", "draws=2", "observation=pigdm"]
    for name, more in {
        "plain": ["formats=[gif]"],
        "known": ["task=between", "draws=2"],
        "told": told,
    }.items():
        done = typed("sample", *of_run, *more, f"name={name}", cwd=tmp_path)
        assert done.code == 0, done.err
    (gif,) = run.glob("samples/plain*/samples.gif")
    (images,) = run.glob("samples/known*/images.png")
    assert gif.stat().st_size > 100 and images.is_file()
    done = typed("sample", *of_run, "task=extend", "task.known=8", cwd=tmp_path)
    assert done.code and "leaves nothing of 8 frames" in done.err
