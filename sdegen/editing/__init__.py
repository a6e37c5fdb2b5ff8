"""Data drawn anew under another condition, beside how they were under their own."""

from sdegen.editing.pairs import Alike, Paired
from sdegen.editing.prompt import LocalBlend, MapEdit, PromptToPrompt
from sdegen.editing.translation import changed_where, translate
from sdegen.editing.words import marking, refinement, replacement, reweighting

__all__ = [
    "Alike",
    "LocalBlend",
    "MapEdit",
    "Paired",
    "PromptToPrompt",
    "changed_where",
    "marking",
    "refinement",
    "replacement",
    "reweighting",
    "translate",
]
