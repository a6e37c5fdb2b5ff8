"""The experiments of networks, small, and what of their settings is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import typed

TINY = ["train.steps=2", "train.batch_size=4", "evaluate.budgets=[2]", "device=cpu"]
FIR = [
    "net.down={_target_: sdegen.networks.FIRDown}",
    "net.up={_target_: sdegen.networks.FIRUp}",
    "net.join={_target_: sdegen.networks.Rescaled}",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        ["dit", "net.width=16", "net.depth=1", "train.checkpointing=true"],
        ["transformer", "net.width=16", "net.depth=1", "+model.heads=2", "loss=hybrid"],
        ["adm", "net.width=16", *FIR],
        ["dit", "net.width=16", "net.depth=1", "task=inpaint", "conditional=false", "loss=edm"],
    ],
    ids=["dit", "transformer", "adm", "beside"],
)
def test_an_experiment_runs(how: list[str], tmp_path: Path) -> None:
    code, out, err = typed("train", f"experiment=networks/{how[0]}", *how[1:], *TINY, cwd=tmp_path)
    assert code == 0, err
    assert "real data (floor)" in out or "task" in " ".join(how)


def test_a_patch_that_does_not_divide_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    how = ["experiment=networks/dit", "net.patch=3", "device=cpu"]
    code, _, err = typed("train", *how, cwd=tmp_path)
    assert code == 1 and "Traceback" not in err
    assert "multiples of 3: cut or pad 8 to 6 or 9, or take smaller patches" in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
