"""``sdegen-card``: a run that is passed on samples as it did, and says what it is."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.files import read_header, read_tensors, write_tensors
from sdegen.runs.card import kind_of, use
from sdegen.runs.folder import Run, content_of
from tests.cases import refused
from tests.processes import typed

LICENSED = ("license=cc0-1.0", "data_license='none: made here'")


def made(plane: Path, out: Path, *arguments: str) -> str:
    """The card's text."""
    done = typed("card", "run=outputs/toy2d", f"out={out}", *arguments, cwd=plane)
    assert done.code == 0, done.err
    assert done.out == f"{out}: the weights, and README.md, which says what they are\n"
    return (out / "README.md").read_text()


def test_a_card_is_read_by_hubs_and_its_lines_run(plane: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    card = made(plane, tmp_path / "points", "license=cc-by-4.0", "about='Two moons: a test.'")
    read = ModelCard(card)
    assert (read.data.license, read.data.library_name) == ("cc-by-4.0", "sdegen")
    assert read.data.pipeline_tag is None and read.text.startswith(
        "\n# points\n\nTwo moons: a test."
    )
    rows = json.loads((plane / "outputs/toy2d/table.json").read_text())
    for row in rows[1:]:
        assert f"| {row['solver']} | {row['nfe']} |  | {row['sliced']:.4g} |" in card
    assert content_of(plane / "outputs/toy2d") == content_of(tmp_path / "points")
    assert f"`{content_of(tmp_path / 'points')}`" in card
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.S)
    here = {}
    exec(lines.replace("path/to/this/folder", str(tmp_path / "points")), here)
    model = sg.load(plane / "outputs/toy2d").given(y=0)
    assert torch.equal(here["x"], sg.sample(model, (16, 2), nfe=20, seed=0))
    assert sorted(path.name for path in (tmp_path / "points").iterdir())[:2] == [
        "README.md", "model.safetensors",
    ]  # fmt: skip


def test_what_the_card_says_is_in_the_weights_too(plane: Path, tmp_path: Path) -> None:
    made(plane, tmp_path / "a", *LICENSED)
    header, before = (
        read_header(folder / "model.safetensors")
        for folder in (tmp_path / "a", plane / "outputs/toy2d")
    )
    card = header.pop("card")
    assert header == before
    assert card["license"] == "cc0-1.0" and card["data"]["license"] == "none: made here"
    assert card["data"]["kind"] == "toy" and card["data"]["counts"] == before["counts"]
    assert card["weights"] == content_of(plane / "outputs/toy2d") and card["packages"] == []
    assert card["figures"] == json.loads((plane / "outputs/toy2d/table.json").read_text())
    # And it is a run like any: a card of a card, sampled.
    done = typed("card", f"run={tmp_path / 'a'}", f"out={tmp_path / 'b'}", *LICENSED, cwd=plane)
    assert done.code == 0, done.err
    done = typed("sample", f"run={tmp_path / 'b'}", "n=3", "nfe=2", "quality=false",
                 "device=cpu", cwd=tmp_path)  # fmt: skip
    assert done.code == 0, done.err
    (samples,) = (tmp_path / "b" / "samples").rglob("samples.safetensors")
    assert len(read_tensors(samples)[0]["x"]) == 3


def test_what_is_not_sampled_plainly_is_said(tmp_path: Path) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "restored": {"task": {"a": 1}},
        "student": {"sampler": {"a": 1}},
    }
    for kind, more in kinds.items():
        run = Run(tmp_path, sg.ScoreModel(lambda x, t: x, sg.VPSDE()), more, [2], [], (), 1)
        assert kind_of(run) == kind
        said = "\n".join(use({"kind": kind, "packages": ["mine"]}))
        assert "packages=['mine']" in said and "sg.sample" not in said
    with refused(
        "here lives in the latents of outputs/coder, without which its samples are no data"
    ):
        kind_of(replace(run, folder=Path("here"), config={"coder": {"run": "outputs/coder"}}))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["license=mit"], "The licence of the data (Mine) is not known: say it by data_license="),
        ([], "license has no value"),
        (
            ["license='GPL 3'"],
            "license must be an identifier as mit, cc-by-4.0 or other, but it is",
        ),
        ([*LICENSED, "run=outputs/none"], "There is no checkpoint outputs/none/model.safetensors"),
        ([*LICENSED, "out=full"], "full is not empty: name a new folder by out="),
    ],
)
def test_nothing_is_left_of_a_card_that_was_refused(
    plane: Path, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    shutil.copytree(
        plane / "outputs/toy2d", tmp_path / "outputs/toy2d", ignore=lambda *_: ["samples"]
    )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    weights = tmp_path / "outputs/toy2d/model.safetensors"
    tensors, header = read_tensors(weights)
    header["config"]["data"]["train"]["_target_"] = "sdegen.data.Mine"
    write_tensors(weights, tensors, header)
    before = sorted(os.walk(tmp_path))
    done = typed("card", "run=outputs/toy2d", *arguments, cwd=tmp_path)
    assert done.code == 1 and reason in done.err and done.err.count("\n") == 1
    assert sorted(os.walk(tmp_path)) == before
