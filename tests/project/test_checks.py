"""What the whole package refuses and warns of in the same words."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

from sdegen.checks import warn

ROOT = Path(__file__).parents[2]


def test_a_warning_is_about_the_line_that_called_the_package() -> None:
    """However many frames of the package, or of torch, lie between."""
    names = {"__name__": "sdegen.somewhere", "warn": warn, "torch": torch}
    code = """
def shallow():
    warn("here")

@torch.no_grad()
def deep():
    return shallow()
"""
    exec(code, names)
    for call in ("shallow", "deep"):
        with pytest.warns(UserWarning, match="here") as seen:
            names[call]()  # type: ignore[operator]
        assert seen[0].filename == __file__


def test_nobody_counts_frames_and_nobody_silences_others() -> None:
    for path in (ROOT / "sdegen").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "checks.py":
            assert not re.search(r"stacklevel|filterwarnings", text), path


@pytest.mark.xdist_group("alone")
def test_groups_of_tests_stay_with_one_worker(request: pytest.FixtureRequest) -> None:
    """pytest-xdist 3.8 forgets them under pytest 9.2 without a word (its issue 1386): then every
    worker makes every fixture anew."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@alone")
