"""What commands say of themselves, and of settings that cannot be: before anything runs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdegen.cli.helping import choices, parts
from sdegen.cli.main import explain, quiet_pipe
from sdegen.runs.bars import pace
from sdegen.training import TrainSettings
from tests.cases import ROOT
from tests.processes import typed

COMMANDS = ("train", "sample", "evaluate", "tune", "report", "card", "bench")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_every_group_and_setting_of_the_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    done = typed(name, "--help", cwd=tmp_path)
    assert done.code == 0 and not done.err and "Hydra" not in done.out.partition("Settings")[0]
    text = (ROOT / "conf" / f"{name}.yaml").read_text()
    for group in re.findall(r"^  - (\w+)(?:@\w+)?:", text, re.M):
        assert re.search(rf"^  \W?{group}\b", done.out, re.M), group
    body = re.sub(
        r"^(hydra|train):.*?(?=^\w|\Z)", "", text.partition("defaults:")[2], flags=re.M | re.S
    )
    for line in re.findall(r"^\w+:.*", body, re.M):
        assert f"  {line}" in done.out
    wrapped = done.out.partition("Settings")[0].splitlines()
    assert max(map(len, wrapped)) <= 60
    assert "sdegen 0." in typed(name, "--version", cwd=tmp_path).out


def test_help_has_the_names_of_folders_within_a_group_and_those_of_the_code() -> None:
    known = choices("train")
    assert "images/emoji" in known["experiment"][1] and "toy2d" in known["experiment"][1]
    assert "dpmpp" in known["+solver@evaluate.solvers.NAME"][1]
    assert choices("report")["solver@right"] == ("dpmpp", ["another one that solver@left has"])
    assert "data" in dict(parts("evaluate")[1]) and dict(parts("evaluate")[1])["data"] is None


@pytest.mark.parametrize(("name", "value", "sentence"), [
    ("steps", "abc", "steps must be a whole number, but it is 'abc'."),
    ("steps", 1e3, "steps must be a whole number, but it is '1000.0'."),
    ("clip", "x", "clip must be a number, but it is 'x'."),
    ("compile", "maybe", "compile must be true or false, but it is 'maybe'."),
    ("seed", None, "seed must have a value, but it is null."),
    ("optimizer", "adam", "optimizer is a group of settings: say which, as optimizer.SETTING=..."),
])  # fmt: skip
def test_a_value_of_another_kind_is_refused_in_our_words(
    name: str, value: Any, sentence: str
) -> None:
    with pytest.raises(OmegaConfBaseException) as error:
        OmegaConf.merge(OmegaConf.structured(TrainSettings), {name: value})
    assert explain(error.value) == sentence


@pytest.mark.parametrize(("said", "sentence"), [
    (["train.steps=abc"], "train.steps must be a whole number, but it is 'abc'."),
    (["sde=null"], "a group takes one of its names, as sde=vp, and cannot be null: ~GROUP leaves "
     "it out."),
    (["name=${foo}"], "${foo} refers to a setting that there is not: give +foo=..."),
    (["+packges=3"], "Nothing reads the setting packges of +packges=3: did you mean packages?"),
    (["name='my"], "Hydra cannot read name='my: blanks and marks need quotes of their "
     """own within the shell's, as 'about="my words"'."""),
    (["+w=../x", "name=${w}"], "name must be the name of a folder, but it is '../x'."),
])  # fmt: skip
def test_what_cannot_be_is_one_sentence(said: list[str], sentence: str, tmp_path: Path) -> None:
    done = typed("train", *said, cwd=tmp_path)
    assert done.code == 1 and done.err == f"sdegen: {sentence}\n"


def test_a_file_where_a_folder_is_to_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "outputs").touch()
    done = typed("train", cwd=tmp_path)
    assert done.code == 1 and done.err.count("\n") == 1
    assert "outputs" in done.err and "there is a file where a folder is to be" in done.err


def test_bars_write_seldom_into_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pace() == 10.0  # what pytest captures is no terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert pace() == 0.1


def test_a_reader_that_has_seen_enough_ends_a_command_without_a_word(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as end, quiet_pipe():
            print("more than anybody reads")
        assert end.value.code == 141
    assert capfd.readouterr().err == ""
