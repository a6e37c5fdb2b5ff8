"""Data: in-memory arrays, two-dimensional toys, bundled pictures, files, and the order of batches.

Every data set is map-style and gives pairs (x, y): x float32 of `shape` (images lie in [-1, 1]),
y the class as an int64 0-d tensor. `classes` is their number; 0 means unlabelled, and y is 0.
Three more attributes are of use where a data set of your own has them: `y`, all labels (n,),
`names`, those of the classes, and `plain`, the same data with nothing random in their items.
"""

from sdegen.data.arrays import ArrayData, from_uint8, to_uint8
from sdegen.data.bundled import digits, photo_patches
from sdegen.data.classes import class_counts, class_labels, gather, numbered_as, stratified
from sdegen.data.files import from_file
from sdegen.data.folders import ImageFolder
from sdegen.data.parts import hold_out
from sdegen.data.sampler import InfiniteBatches, SeededItems
from sdegen.data.scale import Moments, moments
from sdegen.data.toys import toy

__all__ = [
    "ArrayData",
    "ImageFolder",
    "InfiniteBatches",
    "Moments",
    "SeededItems",
    "class_counts",
    "class_labels",
    "digits",
    "from_file",
    "from_uint8",
    "gather",
    "hold_out",
    "moments",
    "numbered_as",
    "photo_patches",
    "stratified",
    "to_uint8",
    "toy",
]
