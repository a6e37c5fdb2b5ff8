"""Data: arrays, toys, bundled pictures, files of the field's formats, and the order of batches.

Every data set is map-style and gives pairs (x, y): x float32 of `shape` (images lie in [-1, 1]),
y the class as an int64 0-d tensor. `classes` is their number; 0 means unlabelled, and y is 0.
More attributes are of use where a data set of your own has them: `y`, all labels (n,), `names`,
those of the classes, `captions`, a text of each, and `plain`, the same data with nothing random in
their items.
"""

from sdegen.data.archives import ImageShards, ImageZip
from sdegen.data.arrays import ArrayData, from_uint8, to_uint8
from sdegen.data.bach import chorales, notes, rolls
from sdegen.data.brain import brain_patches
from sdegen.data.bundled import bold_digits, digits, photo_patches
from sdegen.data.captions import captioned_digits, tokens, vocabulary
from sdegen.data.classes import class_counts, class_labels, gather, numbered_as, stratified
from sdegen.data.files import from_file
from sdegen.data.folders import ImageFolder
from sdegen.data.freesolv import Molecules, molecules
from sdegen.data.glyphs import emoji
from sdegen.data.hub import HubFolder
from sdegen.data.lettering import letters
from sdegen.data.mazes import MazePlans, maze, maze_plans
from sdegen.data.mixed import Mixed
from sdegen.data.moving import moving_digits
from sdegen.data.parts import hold_out
from sdegen.data.recordings import series
from sdegen.data.sampler import InfiniteBatches, SeededItems
from sdegen.data.scale import Moments, moments
from sdegen.data.standard import cifar10, mnist
from sdegen.data.streams import HubStream
from sdegen.data.toys import toy
from sdegen.data.typeset import drawn_markup, markup, markup_tokens, read_markup

__all__ = [
    "ArrayData",
    "HubFolder",
    "HubStream",
    "ImageFolder",
    "ImageShards",
    "ImageZip",
    "InfiniteBatches",
    "MazePlans",
    "Mixed",
    "Molecules",
    "Moments",
    "SeededItems",
    "bold_digits",
    "brain_patches",
    "captioned_digits",
    "chorales",
    "cifar10",
    "class_counts",
    "class_labels",
    "digits",
    "drawn_markup",
    "emoji",
    "from_file",
    "from_uint8",
    "gather",
    "hold_out",
    "letters",
    "markup",
    "markup_tokens",
    "maze",
    "maze_plans",
    "mnist",
    "molecules",
    "moments",
    "moving_digits",
    "notes",
    "numbered_as",
    "photo_patches",
    "read_markup",
    "rolls",
    "series",
    "stratified",
    "to_uint8",
    "tokens",
    "toy",
    "vocabulary",
]
