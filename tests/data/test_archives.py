"""Images in archives: EDM's zip and webdataset's shards."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from braceexpand import braceexpand
from PIL import Image
from torch.utils.data import DataLoader

from sdegen.data import ImageShards, ImageZip, hold_out, to_uint8
from sdegen.data.archives import braced
from tests.cases import refused_with

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def png(k: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS[k]).save(stream, "png")
    return stream.getvalue()


NAMES = [f"{k // 2:05d}/img{k:08d}.png" for k in range(5)]


def zipped(path: Path, labels: Any = None, files: Mapping[str, bytes] | None = None) -> Path:
    """A zip as dataset_tool.py makes it: stored, the list of labels last."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in (files or {n: png(k) for k, n in enumerate(NAMES)}).items():
            archive.writestr(name, content)
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return path


def pixels(x: torch.Tensor) -> np.ndarray:
    return to_uint8(x).permute(1, 2, 0).numpy()


def test_a_zip_of_edm_is_read(tmp_path: Path) -> None:
    listed = [[name, label] for name, label in zip(NAMES, [7, 2, 7, 2, 4], strict=True)]
    data = ImageZip(zipped(tmp_path / "a.zip", listed[::-1]))  # its order is not the images'
    assert (len(data), data.shape, data.levels) == (5, (3, 8, 8), 256)
    assert data.y.tolist() == [2, 0, 2, 0, 1] and data.names == ("2", "4", "7")
    for k, (x, y) in enumerate(data[i] for i in range(5)):
        assert np.array_equal(pixels(x), PIXELS[k]) and y == data.y[k]
    again = pickle.loads(pickle.dumps(data))  # as a worker that is spawned gets it
    assert torch.equal(again[4][0], data[4][0])
    batches = DataLoader(data, 5, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(next(iter(batches))[0], torch.stack([data[i][0] for i in range(5)]))


def test_a_zip_without_labels_has_no_classes(tmp_path: Path) -> None:
    data = ImageZip(zipped(tmp_path / "a.zip"), size=4, channels=1)
    assert data.classes == 0 and data.names == () and data[0][0].shape == (1, 4, 4)
    train, test = hold_out(data, 0.4)
    assert len(train) == 3 and len(test) == 2 and type(test) is ImageZip


def test_what_is_no_such_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with refused_with("there is no file"):
        ImageZip(path)
    path.write_bytes(zipped(path).read_bytes()[:900])
    with refused_with("could not be read (is it damaged?)"):
        ImageZip(path)
    some = [[name, 1] for name in NAMES]
    for labels, words in (
        (some[:3], f"has no label of {NAMES[3]!r}"),
        ([*some[:4], [NAMES[4], "cat"]], "has the label 'cat', which is no whole number"),
        ([*some[:4], [NAMES[4], -1]], "has the label -1"),
        ([*some[:4], [NAMES[4], [0.5]]], "has the label [0.5]"),
        ([*some[:4], [NAMES[4], None]], "has the label None"),
        (7, "must be an object whose labels are null or a list"),
        ([1, 2], "must be an object whose labels are null or a list"),
    ):
        with refused_with(words):
            ImageZip(zipped(path, labels))
    with refused_with("has no image, of .png"):
        ImageZip(zipped(path, files={"a.npy": b"x"}))
    with refused_with(
        "'a.png' could not be read (is it damaged?): it is no image that Pillow knows"
    ):
        ImageZip(zipped(path, files={"a.png": b"x"}))
    for size in (0, 7.5):
        with refused_with(f"size must be a whole number >= 1, but it is {size}"):
            ImageZip(zipped(path), size=size)  # type: ignore[arg-type]
    # One that is damaged is left out, as of a folder.
    data = ImageZip(zipped(path, files={"a.png": png(0), "b.png": png(1)[:60]}))
    with pytest.warns(UserWarning, match="b.png.* is left out"):
        assert np.array_equal(pixels(data[1][0]), PIXELS[0])


def shard(path: Path, files: Mapping[str, bytes], kind: str = "w") -> Path:
    """A shard with files in this order."""
    with tarfile.open(path, kind) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_shards_of_laion_are_read(tmp_path: Path) -> None:
    """As img2dataset leaves them: a picture, its text, and JSON of which nothing is asked."""
    for s, ks in enumerate(([0, 1, 2], [3, 4])):
        files = {}
        for k in ks:
            about = {"caption": "other", "url": "u", "sha256": "0"}
            files[f"{k:09d}.json"] = json.dumps(about).encode()
            files[f"{k:09d}.png"] = png(k)
            files[f"{k:09d}.txt"] = f"picture {k}, é\n".encode()
        shard(tmp_path / f"{s:05d}.tar", files)
    data = ImageShards(tmp_path / "*.tar", 8)
    assert len(data) == 5 and data.classes == 0 and data.captions[3] == "picture 3, é"
    assert all(np.array_equal(pixels(data[k][0]), PIXELS[k]) for k in (4, 0, 2))
    braced = ImageShards(tmp_path / "{00000..00001}.tar", 8)
    assert [str(f) for f in braced.files] == [str(f) for f in data.files]
    assert len(ImageShards(tmp_path / "{00001..00001}.tar", 8)) == 2
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(again[4][0], data[4][0])
    _, held = hold_out(data, 0.4)
    assert len(held.captions) == len(held) == 2
    numbers = [int(caption.split()[1][:-1]) for caption in held.captions]
    assert all(np.array_equal(pixels(held[i][0]), PIXELS[k]) for i, k in enumerate(numbers))


def test_every_shard_is_read_once_and_none_is_skipped(tmp_path: Path) -> None:
    for k in (0, 1, 11):
        shard(tmp_path / f"x{k}.tar", {"0.png": png(0)})
    assert len(ImageShards(tmp_path / "x{0..1}*.tar", 8)) == 3  # x1* is x1 and x11
    with refused_with(f"there is no shard '{tmp_path / 'x2.tar'}'"):
        ImageShards(tmp_path / "x{0..3}.tar", 8)
    for pattern in ("x{1..0}.tar", "x{0,1}.tar", "{x{0..1},x1}.tar", "x[01].tar"):
        assert len(ImageShards(tmp_path / pattern, 8)) == 2
    for name in ("a[1].tar", "b{0..3}.tar"):
        shard(tmp_path / name, {"0.png": png(0), "1.png": png(1)})
        assert len(ImageShards(tmp_path / name, 8)) == 2


@pytest.mark.parametrize(
    "pattern",
    [
        *("a", "{a}", "a{0..3}", "{08..12}", "{8..12}", "{3..0}", "{0..9..4}", "{9..0..3}"),
        *("{a..d}", "{train,val}-{0..1}", "{a,{b,c}d}e", "{a-{0..2},b}", "{,x}y"),
        *("{}", "{a{b,c}}", "x{1..a}y", "{a..}", "{00..2}/{1,2}", "{1..3..0}"),
    ],
)
def test_braces_are_webdatasets(pattern: str) -> None:
    assert braced(pattern) == list(braceexpand(pattern))


def test_braces_that_are_no_choice_take_no_time() -> None:
    """Each is looked into once: 2^200 is too often."""
    for name in ("{" * 200, "{a" * 200 + "}" * 200, "{a,b" * 200):
        assert braced(name) == [name]


def test_samples_that_are_passed_over_are_said(tmp_path: Path) -> None:
    files = {"0.png": png(0), "1.heic": b"x", "photo.v2.png": png(1)}
    with pytest.warns(
        UserWarning, match=r"2 samples in .* are passed over, as that of 1.heic in .*a.tar is"
    ):
        assert len(ImageShards(shard(tmp_path / "a.tar", files), 8)) == 1


def test_what_follows_the_end_of_a_shard_is_refused(tmp_path: Path) -> None:
    """Of shards that were put together as files tarfile reads the first alone, and of a shard with
    a damaged header what comes before it."""
    path = shard(tmp_path / "a.tar", {"0.png": png(0), "1.png": png(1)})
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(5 * 512))
    assert len(ImageShards(path, 8)) == 2
    second = 512 + (len(png(0)) + 511) // 512 * 512
    assert whole[second : second + 5] == b"1.png"
    for content in (whole + whole, whole[:second] + b"x" + whole[second + 1 :]):
        path.write_bytes(content)
        with refused_with("goes on after its end: is it damaged, or are several in one file?"):
            ImageShards(path, 8)


def test_json_is_parsed_where_it_is_needed(tmp_path: Path) -> None:
    files = {"0.png": png(0), "0.json": b"{", "0.cls": b"3", "0.txt": b"a"}
    data = ImageShards(shard(tmp_path / "a.tar", files), 8)
    assert data.names == ("3",) and data.captions == ("a",)


def test_classes_of_shards(tmp_path: Path) -> None:
    by_file = {}
    for k in range(4):
        by_file |= {
            f"d/{k}.seg.png": b"x",
            f"d/{k}.png": png(k),
            f"d/{k}.cls": b"%d" % (k % 2 * 5),
        }
    data = ImageShards(shard(tmp_path / "a.tar", by_file), 8)
    assert data.y.tolist() == [0, 1, 0, 1] and data.names == ("0", "5") and data.captions == ()
    by_json = {}
    for k in range(2):
        by_json |= {
            f"{k}.png": png(k),
            f"{k}.json": json.dumps({"label": k, "text": "t"}).encode(),
        }
    data = ImageShards(shard(tmp_path / "b.tar", by_json), 8)
    assert data.y.tolist() == [0, 1] and data.captions == ("t", "t") and data.classes == 2


def test_what_is_no_shard_is_refused(tmp_path: Path) -> None:
    path, one = tmp_path / "a.tar", {"0.png": png(0), "0.cls": b"1"}
    with refused_with("there is no shard"):
        ImageShards(path, 8)
    with refused_with("(is it damaged, or compressed?)"):
        ImageShards(shard(path, one, "w:gz"), 8)
    path.write_bytes(b"no archive" * 100)
    with refused_with("(is it damaged, or compressed?)"):
        ImageShards(path, 8)
    whole = shard(path, {"0.cls": b"1", "0.png": b"x" * 5000}).read_bytes()
    damaged = "(is it damaged, or compressed?)"
    cuts = {1024: "is cut short", 1030: "is cut short", 2000: damaged, 6000: damaged}
    for cut, words in cuts.items():
        path.write_bytes(whole[:cut])
        with refused_with(words):
            ImageShards(path, 8)
    for files, words in (
        ({"0.txt": b"x"}, "have no image, of .png"),
        ({"0.png": png(0), "0.PNG": png(1)}, f"0.PNG in {path} is there twice"),
        ({**one, "1.png": png(1)}, f"1.png in {path} has no label, but others have one"),
        ({**one, "0.cls": b"cat"}, f"label of 0.png in {path} is 'cat', but it must be a number"),
        ({**one, "0.cls": b"-1"}, "is '-1', but it must be a number from 0 on"),
        ({"0.png": png(0), "0.json": b"{"}, f"0.json in {path} is no JSON object"),
        ({"0.png": png(0), "0.json": b'[["label", 1]]'}, "is no JSON object"),
        ({"0.png": png(0), "0.json": b'{"caption": 3}'}, "is 3, which is no text"),
        ({"0.png": png(0), "0.txt": b"\xff\xfe"}, "could not be read (is it UTF-8?)"),
        ({"0.png": png(0), "0.cls": "\u0663".encode()}, "must be a number from 0 on"),
        ({"0.png": png(0), "0.json": b"[1]"}, "is no JSON object"),
        ({"0.png": png(0), "0.txt": b"a", "1.png": png(1)}, "has no caption, but others have one"),
    ):
        with refused_with(words):
            ImageShards(shard(path, files), 8)
    data = ImageShards(shard(path, {"0.png": png(0), "1.png": png(1)[:50]}), 8)
    with pytest.warns(UserWarning, match=r"1.png in .*a.tar.* is left out"):
        assert np.array_equal(pixels(data[1][0]), PIXELS[0])
