"""Folders that Hugging Face's library saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sdegen.data import HubFolder, hold_out, to_uint8
from tests.cases import refused_with

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
LABELS = [2, 0, 2, 1, 0]


def saved(path: Path, *, named: bool = True, splits: bool = False, **columns: Any) -> Path:
    """A folder with five images, as ``save_to_disk`` writes it."""
    import datasets

    label = datasets.ClassLabel(names=["ant", "bee", "cat"]) if named else datasets.Value("int64")
    features = {"image": datasets.Image(), "label": label, "text": datasets.Value("string")}
    content = {
        "image": [Image.fromarray(each) for each in PIXELS],
        "label": LABELS,
        "text": [f"picture {k}" for k in range(5)],
    }
    table = datasets.Dataset.from_dict({**content, **columns}, datasets.Features(features))
    if splits:
        table = datasets.DatasetDict({"train": table, "test": table.select([4])})
    table.save_to_disk(str(path), num_proc=None)
    return path


@pytest.mark.slow
def test_a_saved_folder_is_read(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    data = HubFolder(saved(tmp_path / "a"), 6, caption="text")
    assert len(data) == 5 and data.names == ("ant", "bee", "cat") and data.classes == 3
    assert data.y.tolist() == LABELS and data.captions[3] == "picture 3" and data.levels == 256
    for k in range(5):
        x, y = data[k]
        assert np.array_equal(to_uint8(x).permute(1, 2, 0).numpy(), PIXELS[k])
        assert int(y) == LABELS[k]
    train, test = hold_out(data, 0.4)
    assert len(train) + len(test) == 5 and test.names == data.names
    k = int(test.captions[0].split()[1])
    assert torch.equal(test[0][0], data[k][0])
    numbers = HubFolder(saved(tmp_path / "b", named=False, label=[7, 0, 7, 3, 0]), 6)
    assert numbers.names == ("0", "3", "7") and numbers.y.tolist() == LABELS
    none = HubFolder(tmp_path / "b", 4, channels=1, label=None)
    assert none.classes == 0 and none[0][0].shape == (1, 4, 4)
    both = saved(tmp_path / "c", splits=True)
    assert (
        len(HubFolder(both, 6, split="train")) == 5 and len(HubFolder(both, 6, split="test")) == 1
    )

    with refused_with("has the splits train, test: name one by split"):
        HubFolder(both, 6)
    with refused_with("has the splits train, test: name one by split"):
        HubFolder(both, 6, split="valid")
    with refused_with("has no splits: leave out split=train"):
        HubFolder(tmp_path / "a", 6, split="train")
    with refused_with("there is no folder"):
        HubFolder(tmp_path / "d", 6)
    with refused_with("has no images 'img': its columns are image (Image), label (ClassLabel)"):
        HubFolder(tmp_path / "a", 6, image="img")
    with refused_with("has no images 'text'"):
        HubFolder(tmp_path / "a", 6, image="text")
    with refused_with("has the columns image, label, text, no 'kind'"):
        HubFolder(tmp_path / "a", 6, label="kind")
    with refused_with("the label 'text' of an item is 'picture 0', but it must be a number"):
        HubFolder(tmp_path / "a", 6, label="text")
    missing = saved(tmp_path / "m", label=[0, None, 1, 2, 0])
    with refused_with("the label 'label' of an item is None, but it must be a number"):
        HubFolder(missing, 6)
    holes = saved(tmp_path / "g", text=["a", None, "b", "c", "d"])
    with refused_with("the caption 'text' of row 1 is None, which is no text"):
        HubFolder(holes, 6, caption="text")
    with refused_with("the caption 'label' of row 0 is 2, which is no text"):
        HubFolder(holes, 6, caption="label")
    (tmp_path / "e").mkdir()
    with refused_with("could not be read as what save_to_disk writes"):
        HubFolder(tmp_path / "e", 6)
    (arrow,) = (tmp_path / "a").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:300])
    with refused_with("could not be read as what save_to_disk writes"):
        HubFolder(tmp_path / "a", 6)
    holed = saved(tmp_path / "f", image=[None, *(Image.fromarray(each) for each in PIXELS[1:])])
    with pytest.warns(UserWarning, match="there is no image in this row"):
        HubFolder(holed, 6)[0]


def test_without_the_library_its_name_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with refused_with("datasets is not installed: pip install 'sdegen[data]'."):
        HubFolder(tmp_path, 6)
