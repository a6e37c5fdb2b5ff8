"""Shards of webdataset through the Trainer: killed and gone on is as undisturbed, bit for bit."""

from __future__ import annotations

import gc
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset as wds
from safetensors.torch import load_file

from sdegen.training.checkpoint import CHECKPOINT
from tests.trainers import trainer


def shards(folder: Path) -> list[str]:
    """Two files of thirty points."""
    points = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    paths = [folder / f"{k}.tar" for k in range(2)]
    for k, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for i in range(30):
                data = io.BytesIO()
                np.save(data, points[30 * k + i])
                about = tarfile.TarInfo(f"{30 * k + i:06}.x.npy")
                about.size = data.tell()
                data.seek(0)
                tar.addfile(about, data)
    return [str(path) for path in paths]


def stream(paths: list[str], shuffled: bool) -> Any:
    """Their points, in the order of the files, or of a shuffle that is a function of its seed."""
    data = wds.WebDataset(paths, shardshuffle=False)
    if shuffled:
        data = data.compose(wds.detshuffle(20, seed=3))
    return data.decode().to_tuple("x.npy").map_tuple(torch.from_numpy)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's own
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_stream_of_shards_goes_on_bit_for_bit(shuffled: bool, tmp_path: Path) -> None:
    """Twelve steps of sixteen: the stream is begun again thrice."""
    paths = shards(tmp_path)
    for name, ends in (("whole", [12]), ("killed", [8, 12])):
        for end in ends:
            run = trainer(tmp_path / name, data=stream(paths, shuffled))
            for record in run.steps():
                if record.step == end < 12:
                    break  # the checkpoint is of step 5
    one, two = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "killed"))
    assert all(torch.equal(one[k], two[k]) for k in one)
    del run
    gc.collect()  # while what it has left open may be passed over
