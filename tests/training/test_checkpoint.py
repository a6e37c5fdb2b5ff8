"""Checkpoints that stay, and how a step is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sdegen.files import PART
from sdegen.training.checkpoint import CHECKPOINT, KEPT, checkpoint_of, kept_path
from tests.cases import refused
from tests.trainers import trainer


def test_every_so_many_steps_a_checkpoint_stays(tmp_path: Path) -> None:
    list(trainer(tmp_path / "r", keep_every=3, save_every=5).steps())
    found = sorted(path.name for path in (tmp_path / "r" / KEPT).iterdir())
    assert found == [f"{step:08}.safetensors" for step in (3, 6, 9, 12)]
    for step in (3, 6, 9):
        alone = tmp_path / str(step)
        list(trainer(alone, steps=step).steps())
        kept, own = load_file(kept_path(tmp_path / "r", step)), load_file(alone / CHECKPOINT)
        assert kept.keys() == own.keys() and all(torch.equal(kept[k], own[k]) for k in kept)
    last = kept_path(tmp_path / "r", 12).read_bytes()
    assert last == (tmp_path / "r" / CHECKPOINT).read_bytes()


def test_one_that_was_kept_can_be_gone_back_to(tmp_path: Path) -> None:
    """By its file in the place of the last: what follows is the same again."""
    folder = tmp_path / "r"
    list(trainer(folder, keep_every=6).steps())
    whole = load_file(folder / CHECKPOINT)
    (folder / CHECKPOINT).unlink()
    shutil.copyfile(kept_path(folder, 6), folder / CHECKPOINT)
    again = trainer(folder, keep_every=6)
    assert again.step == 6
    list(again.steps())
    now = load_file(folder / CHECKPOINT)
    assert all(torch.equal(whole[k], now[k]) for k in whole)


def test_what_is_not_kept_stays_away(tmp_path: Path) -> None:
    list(trainer(tmp_path / "r").steps())
    assert not (tmp_path / "r" / KEPT).exists()


def test_what_a_killed_process_was_keeping_goes(tmp_path: Path) -> None:
    half = tmp_path / "r" / KEPT / f"{PART}00000003-x.safetensors"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"x")
    list(trainer(tmp_path / "r", keep_every=12).steps())
    assert [path.name for path in half.parent.iterdir()] == ["00000012.safetensors"]


def test_the_last_is_replaced_after_the_copy_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two, the run goes on from the one before and misses nothing."""
    from sdegen.training import checkpoint

    def full(*paths: Path) -> None:
        raise OSError("no space left")

    folder = tmp_path / "r"
    how = {"keep_every": 3, "save_every": 50}
    list(trainer(folder, steps=3, **how).steps())
    before = (folder / CHECKPOINT).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "copyfile", full)
        with pytest.raises(OSError, match="no space"):
            list(trainer(folder, **how).steps())
    assert (folder / CHECKPOINT).read_bytes() == before and kept_path(folder, 6).is_file()
    list(trainer(folder, **how).steps())
    list(trainer(tmp_path / "whole").steps())
    one, two = (load_file(tmp_path / name / CHECKPOINT) for name in ("r", "whole"))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_a_step_is_found_or_those_that_there_are_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    list(trainer(folder, keep_every=5, steps=11).steps())
    assert checkpoint_of(folder, None) == checkpoint_of(folder, 11) == folder / CHECKPOINT
    assert checkpoint_of(folder, 5) == kept_path(folder, 5)
    shutil.copyfile(kept_path(folder, 5), folder / KEPT / "00000005 (copy).safetensors")
    with refused(r"no checkpoint of step 7 in .*: there are 5, 10, 11, the last\."):
        checkpoint_of(folder, 7)
    (folder / CHECKPOINT).unlink()
    with refused(r"no checkpoint of step 11 in .*: there are 5, 10\."):
        checkpoint_of(folder, 11)
    with refused(r"no checkpoint of step 1 in .*: there is none"):
        checkpoint_of(tmp_path, 1)
