"""``sdegen-init folder``: a package of your own to begin with: an SDE, a solver, an experiment."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

left = shutil.ignore_patterns("__pycache__", "*.egg-info", "outputs", ".*")
"""What lies about in a clone."""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="sdegen-init", description=__doc__)
    parser.add_argument("folder", help="where it goes: a new folder, or an empty one")
    name = parser.parse_args().folder
    try:
        if not name.strip():
            raise ValueError("The folder has no name: say where the package goes, as mine.")
        begin(folder := Path(name))
    except (ValueError, OSError) as error:
        sys.exit(f"sdegen: {error}")
    print(f"{folder} has a package to begin with: {folder / 'README.md'} says what to run.")


def begin(folder: Path) -> None:
    """The skeleton, whole or not at all.

    An empty folder stays the one it is, so that a shell that is in it, or a link, leads to it.

    ValueError for a folder that holds something already, or is none.
    """
    if folder.is_symlink() and not folder.exists():
        raise ValueError(f"{folder} is a link that leads nowhere: name a new folder.")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a new folder.")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name a new folder, so that nothing is lost.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.resolve().parent, prefix=".part-"))
    try:
        with as_file(files("sdegen.skeleton")) as source:
            shutil.copytree(source, part / "own", ignore=left)
        (part / "own" / "__init__.py").unlink()  # which makes it a part of the wheel
        if folder.is_dir():
            for each in (part / "own").iterdir():
                os.replace(each, folder / each.name)
        else:
            os.replace(part / "own", folder)
    finally:
        shutil.rmtree(part)
