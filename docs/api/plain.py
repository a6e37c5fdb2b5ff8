"""Docstrings are plain text, for a terminal; here they become reStructuredText, word for word."""

from __future__ import annotations

import re
from collections.abc import Sequence

ENTRY = re.compile(r"(\w+(?:(?:, | or | to )\w+)*):\s+(\S.*)")
"""Of a list of arguments: a name and what it is."""


def as_rest(lines: Sequence[str]) -> list[str]:
    """Paragraphs stay paragraphs, lists of arguments are lists, and what is indented or set in
    columns, as equations and tables are, is kept as it is."""
    out: list[str] = []
    for k, block in enumerate(blocks(lines)):
        named = [bool(ENTRY.fullmatch(line)) for line in block]
        if (
            k
            and named[0]
            and all(n or line[0] == " " for n, line in zip(named, block, strict=True))
        ):
            out += entries(block)
        elif any(line[0] == " " or re.search(r"\S {3,}\S", line) for line in block):
            out += ["::", "", *(f"    {line}" for line in block), ""]
        else:
            out += [*map(escaped, block), ""]
    return out


def blocks(lines: Sequence[str]) -> list[list[str]]:
    """Lines between empty ones."""
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line.rstrip())
        elif found[-1]:
            found.append([])
    return [block for block in found if block]


def entries(block: Sequence[str]) -> list[str]:
    """A list of names and what they are, each over as many lines as it takes."""
    out: list[str] = []
    for line in block:
        if named := ENTRY.fullmatch(line):
            out += [f"``{named[1]}``", f"    {escaped(named[2])}"]
        else:
            out.append(f"    {escaped(line.strip())}")
    return [*out, ""]


def escaped(text: str) -> str:
    """A line whose stars, bars, quotes and underscores are themselves; ``code`` stays code."""
    parts = re.split(r"(``.+?``)", text)
    return "".join(
        part if k % 2 else re.sub(r"([\\*|`_])", r"\\\1", part) for k, part in enumerate(parts)
    )
