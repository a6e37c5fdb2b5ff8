"""Systems of the field as programs of examples/, for the gallery."""

from __future__ import annotations

from systems import System

PROGRAMS: list[System] = []
"""In the order of the gallery, after those of commands."""
