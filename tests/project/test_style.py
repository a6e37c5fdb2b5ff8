"""The tree is linted, formatted and typed."""

from __future__ import annotations

import pytest

from tests.cases import ROOT
from tests.processes import python


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["ruff", "check"], id="lint"),
        pytest.param(["ruff", "format", "--check"], id="format"),
        pytest.param(["mypy", "sdegen"], id="types", marks=pytest.mark.slow),  # a minute anew
    ],
)
def test_clean(command: list[str]) -> None:
    python("-m", *command, cwd=ROOT)


def test_modules_are_read_in_one_sitting() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("sdegen", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long
