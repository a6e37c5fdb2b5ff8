"""Data drawn anew under another condition, beside how they were under their own."""

from sdegen.editing.pairs import Alike, Paired
from sdegen.editing.translation import changed_where, translate

__all__ = ["Alike", "Paired", "changed_where", "translate"]
