"""The table of the field's reading list: each system, its lines, command, law and page.

    python benchmarks/reading.py     writes docs/reading.md from benchmarks/reading.csv

A line of reading.csv is a system: its topic, its papers as docs/references.md has them, the
modules below sdegen/ or the program of examples/ that are it, a command, the tests that hold it to
mathematics, below tests/, and the page of docs/ with its equation, and perhaps a picture.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from sdegen.files import write_text

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "reading.md"


def rows() -> list[dict[str, str]]:
    """The systems, in the order of the page."""
    with (HERE / "reading.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def homes(row: dict[str, str]) -> list[str]:
    """The files that are a system."""
    return [e if e.startswith("examples/") else f"sdegen/{e}" for e in row["lines"].split()]


def page() -> Iterator[str]:
    """docs/reading.md."""
    yield from ("# The reading list", "")
    yield (
        "Each system of the field's papers: the lines of sdegen that are it, what runs it, the "
        "tests that hold it to mathematics, and its page. Made by `python benchmarks/reading.py`; "
        "[the gallery](gallery/index.md) has figures of those that were run."
    )
    for topic, some in groupby(rows(), lambda row: row["topic"]):
        yield from ("", f"## {topic}", "")
        yield from ("| system | its lines | command | law | page |", "|---|---|---|---|---|")
        for row in some:
            lines = ", ".join(f"`{each}`" for each in homes(row))
            told, *picture = row["page"].split()
            shown = f"[{told}]({told}.md)" + "".join(f", [picture]({each})" for each in picture)
            yield (
                f"| **{row['system']}**: {row['papers']} | {lines} | `{row['command']}` | "
                f"`tests/{row['law']}` | {shown} |"
            )
    yield ""


if __name__ == "__main__":
    write_text(PAGE, "\n".join(page()))
