"""Data: in-memory arrays, two-dimensional toys, bundled pictures, files, and the order of batches.

Every data set is map-style and gives pairs (x, y): x float32 of `shape` (images lie in [-1, 1]),
y the class as an int64 0-d tensor. `classes` is their number; 0 means unlabelled, and y is 0.
Two more attributes are of use where a data set of your own has them: `y`, all labels (n,), and
`names`, those of the classes.
"""

from sdegen.data.arrays import ArrayData, from_uint8, to_uint8
from sdegen.data.bundled import digits, photo_patches
from sdegen.data.classes import class_counts, class_labels, gather, numbered_as, stratified
from sdegen.data.files import ImageFolder, from_file
from sdegen.data.sampler import InfiniteBatches, SeededItems
from sdegen.data.toys import toy

__all__ = [
    "ArrayData",
    "ImageFolder",
    "InfiniteBatches",
    "SeededItems",
    "class_counts",
    "class_labels",
    "digits",
    "from_file",
    "from_uint8",
    "gather",
    "numbered_as",
    "photo_patches",
    "stratified",
    "to_uint8",
    "toy",
]
