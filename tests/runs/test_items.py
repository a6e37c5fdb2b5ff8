"""Items of every kind through a whole run: the same data are the same run, however handed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from sdegen.data import ArrayData, hold_out
from sdegen.files import read_header
from sdegen.metrics.quality import Quality
from sdegen.runs.folder import WEIGHTS
from sdegen.runs.train import train_run
from sdegen.training.trainer import RECORDS
from tests.cases import close, normal, refused_with

X = normal(40, 2, 4, dtype=torch.float32) * torch.tensor([0.1, 3.0])[:, None]
"""Series of two channels of different scale: an item that could be taken for a pair."""

Y = torch.arange(40) % 4 // 3

KINDS: dict[str, Any] = {
    "x": lambda i: X[i],
    "(x,)": lambda i: (X[i],),
    "(x, y)": lambda i: (X[i], int(Y[i])),
    "(x, names)": lambda i: (X[i], {"y": Y[i], "c": X[i, 0]}),
    "x and label": lambda i: {"x": X[i], "label": int(Y[i])},
    "label and image": lambda i: {"label": Y[i], "image": X[i].numpy()},
}


class Items(Dataset[Any]):
    """X and Y as items of a kind, which tell no labels beforehand."""

    shape = (2, 4)

    def __init__(self, kind: str, classes: int = 0) -> None:
        self.kind, self.classes = kind, classes

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> Any:
        return KINDS[self.kind](i)


class Flat(nn.Module):
    """A linear network that adds a number for each class."""

    def __init__(self, shape: list[int], classes: int) -> None:
        super().__init__()
        self.linear, self.label = nn.Linear(8, 8), nn.Embedding(max(classes, 1), 8)

    def forward(self, x: Tensor, t: Tensor, y: Any = None, c: Any = None) -> Tensor:
        flat = self.linear(x.flatten(1))
        return (flat if y is None else flat + self.label(y)).reshape(x.shape)


def tiny(kind: str, classes: int = 0) -> dict[str, Any]:
    """Two steps and one solver; all of either half of the data is what is measured."""
    return {
        "sde": {"_target_": "sdegen.VPSDE"},
        "net": {"_target_": f"{__name__}.Flat"},
        "model": {"predicts": "edm", "sigma_data": "auto"},
        "sigma_data": "auto",
        "data": {
            "held_out": 0.5,
            "train": {"_target_": f"{__name__}.Items", "kind": kind, "classes": classes},
        },
        "loss": {"_target_": "sdegen.dsm_loss", "_partial_": True},
        "train": {
            "steps": 2,
            "batch_size": 8,
            "log_every": 2,
            "validate_every": 2,
            "device": "cpu",
            "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3},
        },
        "evaluate": {
            "solvers": {"euler": {"_target_": "sdegen.Euler"}},
            "budgets": [2],
            "seed": 0,
        },
        "conditional": classes > 0,
        "packages": ["tests"],
    }


@pytest.mark.filterwarnings("ignore:The data have:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_items_of_every_kind_are_the_same_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the scale, the classes and the floor of arrays, which no item is taken from."""
    for name in ("picture", "trajectory", "curve"):  # which would be nearly all of the time
        monkeypatch.setattr(f"sdegen.runs.finish.{name}", lambda *drawn: None)
    classes = 0 if kind in ("x", "(x,)") else 2
    rows = train_run(tiny(kind, classes), tmp_path, lambda _: None).rows
    halves = hold_out(ArrayData(torch.arange(40.0)[:, None]), 0.5)
    train, test = (half.x[:, 0].long() for half in halves)
    header = read_header(tmp_path / WEIGHTS)
    scale = X[train].double().std(correction=0)
    assert header["config"]["sigma_data"] == float(f"{scale:.4g}")
    assert header["counts"] == (Y[train].bincount().tolist() if classes else [])
    floor = Quality(ArrayData(X[train]), ArrayData(X[test])).floor(len(test))
    close(rows[0].sliced, floor.sliced, rtol=1e-6)
    (record,) = (tmp_path / RECORDS).read_text().splitlines()
    assert json.loads(record)["held_out"] > 0


@pytest.mark.parametrize("kind", ["x", "(x,)"])
def test_classes_without_labels_are_refused(kind: str, tmp_path: Path) -> None:
    with refused_with("says that it has 2 classes, but an item of it has no label y from 0 to 1"):
        train_run(tiny(kind, classes=2), tmp_path, lambda _: None)
