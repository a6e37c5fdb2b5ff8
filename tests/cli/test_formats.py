"""sdegen-train on the field's own files, as a person types it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.processes import typed

RNG = np.random.default_rng(0)


def png(side: int = 8) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(stream, "png")
    return stream.getvalue()


def tarred(path: Path, files: dict[str, bytes], kind: str) -> None:
    with tarfile.open(path, kind) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def mnist(root: Path) -> list[str]:
    for begin in ("train", "t10k"):
        x, y = RNG.bytes(20 * 8 * 8), bytes(k % 10 for k in range(20))
        sizes = b"".join(n.to_bytes(4, "big") for n in (20, 8, 8))
        (root / f"{begin}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(bytes([0, 0, 8, 3]) + sizes + x)
        )
        labels = bytes([0, 0, 8, 1]) + (20).to_bytes(4, "big") + y
        (root / f"{begin}-labels-idx1-ubyte").write_bytes(labels)
    return ["data=mnist", "data.root=."]


def image_zip(root: Path) -> list[str]:
    names = [f"00000/img{k:08d}.png" for k in range(20)]
    with zipfile.ZipFile(root / "d.zip", "w") as archive:
        for name in names:
            archive.writestr(name, png())
        labels = [[name, k % 2] for k, name in enumerate(names)]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return ["data=image_zip", "data.path=d.zip", "data.flip=true"]


def image_shards(root: Path) -> list[str]:
    for s in range(2):
        files: dict[str, bytes] = {}
        for k in range(10):
            files |= {f"{s}{k}.png": png(), f"{s}{k}.cls": b"%d" % (k % 2), f"{s}{k}.txt": b"a"}
        tarred(root / f"{s:05d}.tar", files, "w")
    return ["data=image_shards", 'data.path="{00000..00001}.tar"', "data.size=8"]


def imagenet(root: Path) -> list[str]:
    for name in ("n01440764", "n01443537"):
        (root / "train" / name).mkdir(parents=True)
        for k in range(10):
            (root / "train" / name / f"{name}_{k}.JPEG").write_bytes(png(12))
    return ["data=image_folder", "data.root=train", "data.size=8"]


def hf_folder(root: Path) -> list[str]:
    datasets = pytest.importorskip("datasets")
    pictures = [Image.open(io.BytesIO(png())) for _ in range(20)]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    content = {"image": pictures, "label": [k % 2 for k in range(20)]}
    datasets.Dataset.from_dict(content, features).save_to_disk(str(root / "saved"))
    return ["data=hf_folder", "data.path=saved", "data.size=8"]


@pytest.mark.slow
@pytest.mark.parametrize("make", [mnist, image_zip, image_shards, imagenet, hf_folder])
def test_a_run_is_trained_on_it(make: Callable[[Path], list[str]], tmp_path: Path) -> None:
    tiny = ["net.width=8", "net.heads=2", "train.steps=2", "train.batch_size=4", "device=cpu"]
    alone = ["~evaluate.solvers.ddpm", "~evaluate.solvers.heun", "evaluate.budgets=[2]"]
    code, out, err = typed("train", *make(tmp_path), *tiny, *alone, "name=a", cwd=tmp_path)
    assert code == 0, err
    assert "Classes: " in out and "real data (floor)" in out
