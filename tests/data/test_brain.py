"""Cubes of the template that comes with nilearn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdegen.data import brain, brain_patches
from sdegen.data.brain import template
from tests.cases import close, refused


def test_the_template_is_nilearns() -> None:
    """Each voxel the mean of eight of the file's, on one scale."""
    import nibabel
    import nilearn

    path = Path(nilearn.__file__).parent / "datasets" / "data" / brain.FILE
    volume, raw = template(), torch.as_tensor(nibabel.load(path).get_fdata())
    assert volume.shape == (98, 116, 94) and float(volume.min()) == 0
    for i, j, k in ((40, 50, 45), (60, 30, 50), (97, 115, 93)):
        block = raw[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 2 * k : 2 * k + 2]
        close(volume[i, j, k], block.mean() / raw.max(), rtol=1e-5)
    assert 0.1 < float((volume > 0).float().mean()) < 0.5  # most of it is not brain


def test_cubes_are_mostly_brain() -> None:
    for split, least in (("train", 100), ("test", 20)):
        data = brain_patches(split)
        assert data.shape == (1, 16, 16, 16) and len(data) > least
        assert float(data.x.min()) >= -1 and float(data.x.max()) <= 1
        assert float((data.x > -1).flatten(1).float().mean(1).min()) >= 0.5


def test_parts_share_no_voxel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a volume that says of each voxel how far to the front it is."""
    ramp = torch.arange(1, 117.0)[None, :, None].expand(98, 116, 94) / 116
    monkeypatch.setattr(brain, "template", lambda: ramp)
    train, test = brain_patches("train", 16, 8), brain_patches("test", 16, 8)
    assert float(train.x.max()) < float(test.x.min())
    assert len(train) == 11 * 8 * 10 and len(test) == 11 * 4 * 10
    close(train.x[0, 0, 3, :, 5], 2 * torch.arange(1, 17) / 116 - 1, rtol=1e-6)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused("Unknown split"):
        brain_patches("left")
    with refused("size = 60, but the part is only"):
        brain_patches("test", size=60)
    with refused("stride must be"):
        brain_patches(stride=0)
    monkeypatch.setattr(brain, "find_spec", lambda name: None)
    with refused(r"sdegen\[volumes\]"):
        brain_patches()
