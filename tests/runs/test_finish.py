"""What a finished run leaves behind, and in which order; which samples its pictures show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.data import ArrayData
from sdegen.networks import MLP
from sdegen.plots import save_samples
from sdegen.runs import finish as room
from sdegen.runs.pictures import shown
from sdegen.runs.settings import Comparison
from sdegen.solvers import Heun


def test_a_picture_does_not_cost_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any) -> None:
        raise RuntimeError("no ink")

    data = ArrayData(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
    model = sg.ScoreModel(MLP(2, width=4), sg.VPSDE())
    config, header = {"conditional": False}, {"counts": [], "names": [], "shape": [2]}
    compared, solvers = Comparison({}, [2, 4], 0), {"heun": Heun(), "again": Heun()}
    monkeypatch.setattr(room, "picture", fails)
    with pytest.raises(RuntimeError, match="no ink"):
        room.finish(model, config, compared, tmp_path, data, None, solvers, None, header)
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [row["solver"] for row in rows] == ["heun", "heun", "again", "again"]
    assert [row["nfe"] for row in rows] == [2, 4, 2, 4]


def test_images_are_shown_ten_of_each_of_ten_classes(tmp_path: Path) -> None:
    y = torch.arange(400) % 12
    x = torch.arange(400.0)[:, None, None, None].expand(400, 1, 2, 2)
    names = [f"class {k}" for k in range(12)]
    some = shown(x, y, names)
    assert some.x[:, 0, 0, 0].tolist() == [k + 12 * i for k in range(10) for i in range(10)]
    assert some.classes == [name for name in names[:10] for _ in range(10)]
    assert shown(x[:3], y[:3]).classes == ["0", "1", "2"]
    # A row is theirs then as it would be of all.
    a = save_samples(some.x, tmp_path / "a.png", columns=10, classes=some.classes)
    order = y.argsort(stable=True)
    every = [names[k] for k in y[order].tolist()]
    b = save_samples(x[order], tmp_path / "b.png", columns=10, classes=every)
    assert a.read_bytes() == b.read_bytes()


def test_other_samples_are_shown_as_they_come() -> None:
    x = torch.arange(12_000.0).reshape(6000, 2)
    some = shown(x, torch.arange(6000) % 2)
    assert torch.equal(some.x, x[:5000]) and some.classes[:3] == ["0", "1", "0"]
    assert shown(torch.zeros(200, 3, 4, 4)).x.shape == (100, 3, 4, 4)
    assert len(shown(torch.zeros(9, 4, 8, 8)).x) == 0
    clips = shown(torch.arange(36.0)[:, None].expand(-1, 16).reshape(9, 1, 4, 4, 4))
    assert clips.columns == 4 and torch.equal(clips.x[:, 0, 0, 0], torch.arange(36.0))
