"""What a page cannot show is said in a sentence."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sdegen.bench import problems
from sdegen.report.page import ReportSettings
from sdegen.report.pictures import digit_grids
from sdegen.report.run import RunReportSettings
from tests.cases import refused


def test_samples_that_are_no_grey_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "run", lambda path: problems.mixture())
    with refused(r"grey images, as the digits are, but samples of run=mine are \("):
        digit_grids({}, (5,), Path("mine"))


@pytest.mark.parametrize("kind", [RunReportSettings, ReportSettings])
def test_a_page_does_not_go_where_a_folder_is(kind: Any, tmp_path: Path) -> None:
    given = {each.name: None for each in fields(kind)} | {"out": str(tmp_path)}
    given |= {"run": "a", "folder": "b", "device": "cpu"}
    with refused(f"out={tmp_path} is a folder: name a file in it"):
        kind(**{each.name: given[each.name] for each in fields(kind)})
