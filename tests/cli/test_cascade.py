"""Two commands as a cascade: small images, and what superresolve makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sdegen.data import captioned_digits
from sdegen.files import write_tensors
from sdegen.guidance import Average
from tests.processes import typed

TASK = ["experiment=digits", "conditional=false", "task=superresolve", "task.augment=0.5"]
TINY = ["net.width=8", "net.heads=2", "train.steps=2", "train.batch_size=4", "device=cpu"]
LEVEL = "task.level=0"
FEW = ["solver=ddim", "nfe=3", "draws=1", "device=cpu", "quality=false", "task=superresolve"]


@pytest.fixture(scope="module")
def upsampler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny second stage, and small images as samples."""
    cwd = tmp_path_factory.mktemp("cascade")
    data = captioned_digits("test").x[:60]
    np.save(cwd / "some.npy", data.numpy())
    how = ["data=array_file", "data.path=some.npy", "name=up", "evaluate.budgets=[2]"]
    code, out, err = typed("train", *TASK, *how, *TINY, cwd=cwd)
    assert code == 0, out + err
    write_tensors(cwd / "samples.safetensors", {"x": Average(2)(data[:3])}, {})
    return cwd


def test_small_samples_are_made_large(upsampler: Path) -> None:
    """As many as there are, told the noise that was asked for, and nothing that is not known is
    said of them."""
    made = {}
    for level in (0.0, 0.4):
        how = ["task.augment=0.5", f"task.level={level}", "image=samples.safetensors"]
        code, out, err = typed("sample", "run=outputs/up", *FEW, *how, cwd=upsampler)
        assert code == 0, out + err
        folder = upsampler / out.strip().rpartition("Samples are in ")[2]
        made[level] = load_file(folder / "samples.safetensors")["x"]
        assert "restored" not in json.loads((folder / "result.json").read_text())
        assert (folder / "images.png").is_file() and "PSNR" not in out
    assert made[0.0].shape == (3, 3, 16, 16) and not torch.equal(made[0.0], made[0.4])


def test_held_out_images_are_measured(upsampler: Path) -> None:
    how = ["n=2", "task.augment=0.5", "task.level=0.1"]
    code, out, err = typed("sample", "run=outputs/up", *FEW, *how, cwd=upsampler)
    assert code == 0 and "PSNR" in out, out + err


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (["task.augment=0.5", "task.level=0.7"], "level lies in"),
        (["task.augment=0.3"], "task.augment=0.5"),
        (["task.level=0.1"], "give task.augment=0.5, as it was"),  # and not that level lies in 0
        (["task.augment=0.5", "image=samples.safetensors"], "task.level=0.1"),
        (
            ["task.augment=0.5", LEVEL, "image=other.safetensors"],
            "holds y, and no samples x",
        ),
        (["task.augment=0.5", LEVEL, "image=wide.safetensors"], "resize or convert"),
        (["task.augment=0.5", LEVEL, "image=none.safetensors"], "none.safetensors"),
    ],
)
def test_what_does_not_fit_is_refused(upsampler: Path, how: list[str], words: str) -> None:
    write_tensors(upsampler / "other.safetensors", {"y": torch.zeros(2)}, {})
    write_tensors(upsampler / "wide.safetensors", {"x": torch.zeros(2, 3, 4, 4)}, {})
    code, out, err = typed("sample", "run=outputs/up", *FEW, *how, cwd=upsampler)
    assert code and words in out + err
    assert "Traceback" not in err


def test_the_noise_between_is_a_samples_alone(upsampler: Path) -> None:
    code, out, err = typed("train", *TASK, "task.level=0.1", "name=no", *TINY, cwd=upsampler)
    assert code and "task.level is of sdegen-sample" in out + err
    assert not any((upsampler / "outputs" / "no").iterdir())
