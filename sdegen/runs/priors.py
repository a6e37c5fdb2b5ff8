"""Priors: what a finished run makes, as data of the runs that go on from it.  DreamBooth."""

from __future__ import annotations

from pathlib import Path

from sdegen.checks import text, whole
from sdegen.data import ArrayData, class_labels
from sdegen.distill import pairs_of
from sdegen.runs.folder import generating, load_run, of_data


def samples_of(run: str, n: int, nfe: int = 20, seed: int = 0, levels: int = 0) -> ArrayData:
    """n samples of a finished run in ``nfe`` network calls each, its classes in the shares that
    its training data have them: made anew wherever the data are built, of the seed alone.

    A set of ``Mixed`` beside a few pictures of something new, it is DreamBooth's prior: what is
    learned of it is what the model did before.  Ruiz et al. (2023), eq. 2.
    levels: their values are rounded to so many between -1 and 1, as the data's are; 0: not.

    ValueError for a run that does not generate its data by itself, or of texts.
    """
    whole("n", n), whole("nfe", nfe), whole("levels", levels, 0)
    made = load_run(Path(text("run", run)), [], "cpu")
    of_data(generating(made, "A prior"), "A prior")
    if made.text is not None:
        raise ValueError(f"A prior is of classes or of none, but {run} is told texts.")
    y = class_labels(n, made.counts) if made.counts else None
    pairs = pairs_of(made.model, n, made.shape, seed=seed, y=y, classes=len(made.counts), nfe=nfe)
    x = pairs.x
    if levels:
        x = ((x.clamp(-1, 1) + 1) / 2 * (levels - 1)).round() / (levels - 1) * 2 - 1
    return ArrayData(x, y, levels, made.names)
