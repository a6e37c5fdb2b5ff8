"""Streams of Hugging Face's library, from files made here: what they give, and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sdegen.data import HubStream, to_uint8
from sdegen.data.streams import Pictures, Row
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import refused_with
from tests.processes import TINY, typed
from tests.trainers import trainer

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 6, 6, 3), dtype=np.uint8)
LABELS = [0, 1, 2, 0, 1, 2, 0]


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their shuffled streams sleep for five seconds whenever one ends."""
    config = pytest.importorskip("datasets").config
    monkeypatch.setattr(config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


def files(folder: Path, named: bool = True, **columns: Any) -> Path:
    """Seven images in two Parquet files."""
    import datasets

    label = datasets.ClassLabel(names=["ant", "bee", "cat"]) if named else datasets.Value("int64")
    features = datasets.Features({"image": datasets.Image(), "label": label})
    content = {"image": [Image.fromarray(each) for each in PIXELS], "label": LABELS, **columns}
    table = datasets.Dataset.from_dict(content, features)
    folder.mkdir(exist_ok=True)
    for k, rows in enumerate((range(4), range(4, 7))):
        table.select(rows).to_parquet(str(folder / f"{k}.parquet"))
    return folder / "*.parquet"


def test_images_come_in_the_order_of_their_files(tmp_path: Path) -> None:
    data = HubStream(files(tmp_path), 6)
    assert data.names == ("ant", "bee", "cat") and data.classes == 3 and data.shape == (3, 6, 6)
    for _ in range(2):  # it can be begun again
        items = list(data)
        assert [int(y) for _, y in items] == LABELS
        assert all(
            np.array_equal(to_uint8(x).permute(1, 2, 0).numpy(), pixels)
            for (x, _), pixels in zip(items, PIXELS, strict=True)
        )
    mixed = HubStream(tmp_path / "*.parquet", 6, shuffle=4, seed=3)
    one, two = ([int(y) for _, y in mixed] for _ in range(2))
    assert one == two != LABELS and sorted(one) == sorted(LABELS)
    assert next(iter(HubStream(tmp_path / "*.parquet", 4, 1, label=None))).shape == (1, 4, 4)
    Image.fromarray(PIXELS[0]).save(tmp_path / "a.png")
    rows = [{"image": str(tmp_path / "a.png"), "label": 1}] * 2
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ((x, y), _) = HubStream(tmp_path / "a.jsonl", 6, classes=2)
    assert torch.equal(x, items[0][0]) and int(y) == 1
    import datasets

    datasets.Dataset.from_parquet(str(tmp_path / "0.parquet")).save_to_disk(str(tmp_path / "d"))
    arrow = HubStream(tmp_path / "d" / "*.arrow", 6)
    assert all(torch.equal(x, z) for (x, _), (z, _) in zip(arrow, items, strict=False))


def test_what_cannot_be_streamed_is_told(tmp_path: Path) -> None:
    path = files(tmp_path / "a", named=False)
    with refused_with("there is no file"):
        HubStream(tmp_path / "*.parquet", 6)
    with refused_with("has the columns image, label, no 'img'"):
        HubStream(path, 6, image="img")
    with refused_with("are numbers: say how many classes there are, classes=10, or label=null"):
        HubStream(path, 6)
    with refused_with("the label of row 2 in"):
        list(HubStream(path, 6, classes=2))
    with refused_with("channels = 2"):
        HubStream(path, 6, 2)
    (tmp_path / "a" / "b.json").write_text("{}")
    with refused_with("must be files of one kind, of .parquet, .json, .jsonl, .arrow"):
        HubStream(tmp_path / "a" / "*", 6)
    whole = (tmp_path / "a" / "0.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with refused_with("could not be read (is it damaged?)"):
        HubStream(tmp_path / "cut.parquet", 6)
    images = [None, *(Image.fromarray(each) for each in PIXELS[1:])]
    holed = HubStream(files(tmp_path / "c", image=images), 6)
    with pytest.warns(UserWarning, match="row 0.*no image in this row.*It is left out"):
        assert len(list(holed)) == 6
    assert len(list(holed)) == 6  # and is not said again


def test_a_damaged_shard_is_named_at_the_start_and_a_lost_one_when_it_is_read(
    tmp_path: Path,
) -> None:
    path, second = files(tmp_path), tmp_path / "1.parquet"
    whole = second.read_bytes()
    stream = HubStream(path, 6)
    second.unlink()
    with refused_with("1.parquet' could not be read (is it damaged?)"):
        list(stream)
    second.write_bytes(whole[: len(whole) // 2])
    with refused_with("1.parquet' could not be read (is it damaged?)"):
        HubStream(path, 6)
    rows = [json.dumps({"image": "a.png"})] * 2
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    (tmp_path / "b.jsonl").write_text(rows[0][:-5])
    with refused_with("b.jsonl' could not be read (is it damaged?)"):
        HubStream(tmp_path / "*.jsonl", 6, label=None)


def test_names_of_images_are_beside_the_file_that_says_them(tmp_path: Path) -> None:
    # The same name in two folders, of different pictures; in one of them a second file, and in the
    # other the whole name of a picture that lies in the first.
    names = {"a/a": "x.png", "a/z": "z.png", "b/a": "x.png", "b/b": str(tmp_path / "a" / "z.png")}
    for k, (file, name) in enumerate(names.items()):
        path = tmp_path / f"{file}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"image": name, "label": k}))
        if k < 3:
            Image.fromarray(PIXELS[k]).save(path.parent / name)

    def seen(path: str, **how: int) -> list[tuple[list[Any], int]]:
        stream = HubStream(tmp_path / path, 6, classes=4, **how)  # type: ignore[arg-type]
        return [(to_uint8(x).permute(1, 2, 0).tolist(), int(y)) for x, y in stream]

    want = [(PIXELS[k].tolist(), y) for y, k in enumerate((0, 1, 2, 1))]
    assert seen("a/*.jsonl") == want[:2]
    assert seen("*/*.jsonl") == want
    mixed = [seen("*/*.jsonl", shuffle=4, seed=seed) for seed in (1, 1, 2, 3, 4)]
    assert mixed[0] == mixed[1] and all(sorted(each) == sorted(want) for each in mixed)
    assert any(each != mixed[0] for each in mixed[2:])


@pytest.mark.parametrize("first", ["whole", "null"])
def test_names_in_several_folders_whatever_the_first_row_has(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k, folder in enumerate("ab"):
        (tmp_path / folder).mkdir()
        Image.fromarray(PIXELS[k]).save(tmp_path / folder / "x.png")
        begins = str(tmp_path / folder / "x.png") if first == "whole" else None
        rows = [{"image": name, "label": k} for name in (begins, "x.png")]
        (tmp_path / folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Image.fromarray(PIXELS[2]).save(tmp_path / "x.png")  # where we are, and no row's
    monkeypatch.chdir(tmp_path)
    data = HubStream(tmp_path / "*" / "a.jsonl", 6, classes=2)
    if first == "null":
        with pytest.warns(UserWarning, match="no image in this row") as warned:
            items = list(data)
        assert len(warned) == 2
    else:
        items = list(data)
    want = [k for k in range(2) for _ in range(len(items) // 2)]
    assert [int(y) for _, y in items] == want and len(items) == (4 if first == "whole" else 2)
    for (x, _), k in zip(items, want, strict=True):
        assert np.array_equal(to_uint8(x).permute(1, 2, 0).numpy(), PIXELS[k])


def test_a_name_whose_folder_is_not_known_is_not_looked_up_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(PIXELS[0]).save(tmp_path / "x.png")
    monkeypatch.chdir(tmp_path)
    pictures = Pictures(6, 3, "white", ["a/a.jsonl", "b/a.jsonl"])
    with refused_with("its image is 'x.png', but in which folder is not known"):
        pictures.read(Row(0, {"path": "x.png", "bytes": None}))


def test_labels_of_several_folders_may_be_counted_otherwise(tmp_path: Path) -> None:
    import datasets

    named = [datasets.ClassLabel(names=names) for names in (["ant", "bee"], ["bee", "ant"])]
    short, long = datasets.Value("int32"), datasets.Value("int64")
    for first, second in ((short, long), (long, short), (named[0], long), (long, named[0]), named):
        for folder, kind in zip("ab", (first, second), strict=True):
            features = datasets.Features({"image": datasets.Image(), "label": kind})
            content = {"image": [Image.fromarray(PIXELS[0])], "label": [1]}
            (tmp_path / folder).mkdir(exist_ok=True)
            table = datasets.Dataset.from_dict(content, features)
            table.to_parquet(str(tmp_path / folder / "x.parquet"))
        if second is named[1]:  # other names: 1 is not 1
            with refused_with("cannot be one stream"):
                HubStream(tmp_path / "*" / "x.parquet", 6)
        else:
            data = HubStream(tmp_path / "*" / "x.parquet", 6, classes=2)
            assert [int(y) for _, y in data] == [1, 1]


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_second_folder_without_a_column_is_named(column: str, tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        Image.fromarray(PIXELS[0]).save(tmp_path / folder / "x.png")
        row = {"image": "x.png", "label": 1}
        if folder == "b":
            del row[column]
        (tmp_path / folder / "a.jsonl").write_text(json.dumps(row))
    file = str(tmp_path / "b" / "a.jsonl")
    with refused_with(f"{file!r} has the columns {', '.join(row)}, no {column!r}"):
        HubStream(tmp_path / "*" / "a.jsonl", 6, classes=2)


@pytest.mark.parametrize("kind", ["numbers", "lists of images"])
def test_a_column_that_is_none_of_images_is_told(kind: str, tmp_path: Path) -> None:
    import datasets

    picture = Image.fromarray(PIXELS[0])
    features = {"image": datasets.List(datasets.Image())} if kind != "numbers" else None
    table = datasets.Dataset.from_dict(
        {"image": [[picture, picture] if features else 3]},
        datasets.Features(features) if features else None,
    )
    table.to_parquet(str(tmp_path / "0.parquet"))
    with refused_with("but it must be of images, or of their files' names"):
        HubStream(tmp_path / "0.parquet", 6, label=None)


def test_rows_of_a_shuffled_stream_are_said_to_be_its(tmp_path: Path) -> None:
    images = [None, *(Image.fromarray(each) for each in PIXELS[1:])]
    holed = HubStream(files(tmp_path, image=images), 6, shuffle=4)
    with pytest.warns(UserWarning, match="row [0-6] of the shuffled stream"):
        assert len(list(holed)) == 6


def test_without_the_library_its_name_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with refused_with("datasets is not installed: pip install 'sdegen[data]'."):
        HubStream(tmp_path, 6)


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_killed_run_on_a_stream_of_theirs_goes_on_bit_for_bit(
    shuffled: bool, tmp_path: Path
) -> None:
    """Twelve steps of sixteen, of sixty points: the stream is begun again thrice."""
    import datasets

    points = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    path = str(tmp_path / "points.parquet")
    datasets.Dataset.from_dict({"x": points.tolist()}).to_parquet(path)
    for name, ends in (("whole", [12]), ("killed", [8, 12])):
        for end in ends:
            data = datasets.load_dataset("parquet", data_files=path, split="train", streaming=True)
            data = data.shuffle(seed=3, buffer_size=20) if shuffled else data
            for record in trainer(tmp_path / name, data=data.with_format("torch")).steps():
                if record.step == end < 12:
                    break  # the checkpoint is of step 5
    one, two = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "killed"))
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.slow
def test_the_command_trains_on_a_stream_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    path = files(tmp_path / "a")
    unet = ["net=unet", "net.width=8", "data=hf_stream", f"data.path='{path}'", "data.size=8"]
    few = [f"~evaluate.solvers.{name}" for name in ("ddpm", "ddim", "heun", "euler_maruyama")]
    how = [each for each in TINY if not each.startswith(("net", "data"))] + unet + few
    how += ["data.shuffle=4", "conditional=true", "train.steps=6", "train.save_every=2"]
    how += ["train.batch_size=4", "evaluate.budgets=[2]"]
    for more in (["name=whole"], ["name=part", "train.steps=3"], ["name=part"]):
        code, out, err = typed("train", *how, *more, cwd=tmp_path)
        assert code == 0, err
    assert "a stream" in out and "samples are not measured" in out
    one, two = (load_file(tmp_path / "outputs" / k / CHECKPOINT) for k in ("whole", "part"))
    assert all(torch.equal(one[k], two[k]) for k in one)
