"""Priors: what a finished run makes, as data of the runs that go on from it.  DreamBooth.

A run makes them once, into its own folder, and knows who made them by the content of the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdegen.checks import text, whole
from sdegen.data import ArrayData, class_labels
from sdegen.distill import pairs_of
from sdegen.files import claim, read_header, read_tensors, write_tensors
from sdegen.runs.build import build
from sdegen.runs.folder import generating, load_run, of_data
from sdegen.runs.kept import changed
from sdegen.runs.weights import base_of, content_of


def samples_of(
    run: str,
    n: int,
    nfe: int = 20,
    seed: int = 0,
    levels: int = 0,
    content: str | None = None,
    kept: str | None = None,
) -> ArrayData:
    """n samples of a finished run in ``nfe`` network calls each, its classes in the shares that
    its training data have them.

    A set of ``Mixed`` beside a few pictures of something new, it is DreamBooth's prior: what is
    learned of it is what the model did before.  Ruiz et al. (2023), eq. 2.
    levels: their values are rounded to so many between -1 and 1, as the data's are; 0: not.
    content: of the run's weights, where they have to be these.  kept: a file of the samples, made
    before, which is read; a run that is trained with them gives both itself.

    ValueError for a run that does not generate its data by itself, or of texts, for one of other
    weights, and for a file of other samples.
    """
    whole("n", n), whole("nfe", nfe), whole("levels", levels, 0)
    made_by = {"by": content, "how": {"n": n, "nfe": nfe, "seed": seed, "levels": levels}}
    if kept is not None:
        about = read_header(Path(kept))
        if {name: about.get(name) for name in made_by} != made_by:
            raise ValueError(
                f"The samples {kept} are another run's than {run} is now, or were made otherwise: "
                "bring that run back, choose another run folder (name=...), or delete them."
            )
        found, _ = read_tensors(Path(kept))
        return ArrayData(found["x"], found.get("y"), levels, about["names"])
    place = Path(text("run", run))
    if content is not None:
        place = base_of({"run": run, "content": content}, None)
    made = load_run(place, [], "cpu")
    of_data(generating(made, "A prior"), "A prior")
    if made.text is not None:
        raise ValueError(f"A prior is of classes or of none, but {run} is told texts.")
    y = class_labels(n, made.counts) if made.counts else None
    pairs = pairs_of(made.model, n, made.shape, seed=seed, y=y, classes=len(made.counts), nfe=nfe)
    x = pairs.x
    if levels:
        x = ((x.clamp(-1, 1) + 1) / 2 * (levels - 1)).round() / (levels - 1) * 2 - 1
    return ArrayData(x, y, levels, made.names)


def with_priors(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A configuration whose priors are known by the content of the runs that make them, and are
    kept in the folder of the run that learns of them; made now, where they are not there.

    ValueError for a run that is missing, or has other weights than it had.
    """

    def keep(node: dict[str, Any], path: Path) -> dict[str, Any]:
        content = node.get("content") or content_of(Path(text("run", node.get("run", ""))))
        node = {**node, "content": content}
        if not path.is_file():
            made = build(node)
            how = {"n": len(made), "nfe": 20, "seed": 0, "levels": 0}
            how = {name: node.get(name, value) for name, value in how.items()}
            tensors = {"x": made.x} | ({} if made.y is None else {"y": made.y})
            claim(folder)
            about = {"by": content, "how": how, "names": list(made.names)}
            write_tensors(path, tensors, about)
        return {**node, "kept": str(path)}

    return {**config, "data": changed(config["data"], folder, keep)}
