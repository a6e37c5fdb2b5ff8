"""Data drawn anew under another condition, beside how they were under their own."""

from sdegen.editing.inversion import NullText, as_vectors, direct_inversion, null_text
from sdegen.editing.pairs import Alike, Paired
from sdegen.editing.prompt import LocalBlend, MapEdit, PromptToPrompt
from sdegen.editing.translation import changed_where, translate
from sdegen.editing.words import marking, refinement, replacement, reweighting
from sdegen.editing.zero import edit_direction, pix2pix_zero

__all__ = [
    "Alike",
    "LocalBlend",
    "MapEdit",
    "NullText",
    "Paired",
    "PromptToPrompt",
    "as_vectors",
    "changed_where",
    "direct_inversion",
    "edit_direction",
    "marking",
    "null_text",
    "pix2pix_zero",
    "refinement",
    "replacement",
    "reweighting",
    "translate",
]
