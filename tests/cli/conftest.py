"""Finished runs, for the commands that take one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import TINY, run, typed


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a tiny conditional run on the digits has finished."""
    cwd = tmp_path_factory.mktemp("cli")
    tiny = ["net.width=8", "net.heads=2", "train.steps=3", "train.batch_size=8", "device=cpu"]
    code, out, err = run("train", *tiny, "evaluate.budgets=[2]", cwd=cwd)
    assert code == 0, err
    assert "real data (floor)" in out and "Frechet" in out and "Classes: 0 (" in out
    return cwd


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a tiny run on points of the plane has finished: outputs/toy2d."""
    cwd = tmp_path_factory.mktemp("plane")
    code, _, err = typed("train", *TINY, "train.steps=2", "conditional=true", cwd=cwd)
    assert code == 0, err
    return cwd
