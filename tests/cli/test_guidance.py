"""sdegen-sample with guidance, of a run that dropped its labels and of one that did not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.processes import TINY, typed

pytestmark = pytest.mark.xdist_group("plane")
"""One run is made for all."""


CLIPPED = ["guidance=cfg_thresholded", "guidance.threshold.data_range=[-1,1]"]


def test_a_run_that_dropped_nothing_is_not_guided(plane: Path) -> None:
    code, _, err = typed("sample", "run=outputs/toy2d", "guidance=cfg", "n=2", cwd=plane)
    assert code == 1
    said = "asks for the model with y = 2, as which the run was never trained: it dropped nothing."
    assert said in err and "Traceback" not in err
    code, _, err = typed("sample", "run=outputs/toy2d", "+guidance.scale=3", "n=2", cwd=plane)
    assert code == 1 and "guidance is one of its group, as guidance=cfg" in err


def test_a_run_is_guided(tmp_path: Path) -> None:
    """Twice the evaluations, a folder that says what was set, scale 1 as without guidance."""
    tiny = [*TINY, "train.steps=1", "conditional=true", "loss=dropped", "name=d"]
    code, _, err = typed("train", *tiny, cwd=tmp_path)
    assert code == 0, err
    config = json.loads((tmp_path / "outputs" / "d" / "config.json").read_text())
    assert config["loss"]["without"] == {"y": 2}  # the moons' classes are 0 and 1
    made = {}
    judged = ["guidance=classifier", "guidance.steps=2"]
    for how in ([], ["guidance=cfg", "guidance.scale=1"], [*CLIPPED], judged):
        sample = ["run=outputs/d", "solver=ddim", "nfe=4", "n=5", "device=cpu", "quality=false"]
        name = f"name=s{len(made)}"
        code, _, err = typed("sample", *sample, name, *how, cwd=tmp_path)
        assert code == 0, err
        made[len(made)] = load_file(
            tmp_path
            / "outputs"
            / "d"
            / "samples"
            / f"s{len(made)}-nfe4-seed0"
            / "samples.safetensors"
        )
    assert (made[0]["x"] == made[1]["x"]).all() and not (made[0]["x"] == made[2]["x"]).all()
    assert made[1]["nfe"].tolist() == made[2]["nfe"].tolist() == made[3]["nfe"].tolist() == [4] * 5
    assert (tmp_path / "outputs" / "d" / "judge.safetensors").is_file()
    assert not (made[0]["x"] == made[3]["x"]).all()
    code, _, err = typed("sample", "run=outputs/d", "guidance=no_such", cwd=tmp_path)
    assert code == 1 and "cfg" in err
