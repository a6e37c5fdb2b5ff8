"""What a page cannot show is said in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdegen.bench import problems
from sdegen.report.pictures import digit_grids
from tests.cases import refused


def test_samples_that_are_no_grey_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "run", lambda path: problems.mixture())
    with refused(r"grey images, as the digits are, but samples of run=mine are \("):
        digit_grids({}, (5,), Path("mine"))
