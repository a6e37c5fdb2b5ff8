"""The weights of a finished run: by what they are known, and who begins with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdegen.files import content, load_weights, read_tensors
from sdegen.model.score import ScoreModel

WEIGHTS = "model.safetensors"


def content_of(folder: Path) -> str:
    """The weights of a finished run, in a few letters that only these weights have."""
    return content(read_tensors(folder / WEIGHTS)[0])


def base_of(base: Mapping[str, Any], beside: Path | None) -> Path:
    """The folder of a base: where it was, or under its name next to the run, or to one of the two
    folders around it, as a card in its run's folder has it; of a bare name there first.

    Of several the first one with the base's weights. ValueError where there is none.
    """
    was = Path(base["run"])
    around = [] if beside is None else [up / was.name for up in beside.resolve().parents[:3]]
    places = [*around, was] if was.name == base["run"] else [was, *around]
    found = [place for place in places if (place / WEIGHTS).is_file()]
    if not found:
        raise ValueError(
            "This run stands on another that is not at "
            f"{' nor at '.join(map(str, places))}: bring the one of content {base['content']} "
            "back."
        )
    contents = dict[str, Path]()
    for place in found:
        contents.setdefault(content := content_of(place), place)
        if content == base["content"]:
            return place
    other, place = next(iter(contents.items()))
    raise ValueError(
        f"The base in {place} has other weights ({other}) than the one that this run was "
        f"begun over ({base['content']}): bring those back, or begin anew (name=...)."
    )


def begin(model: ScoreModel, config: dict[str, Any]) -> None:
    """Give a student its teacher's weights, where it begins with them: all but those of numbers
    that the teacher was not told, which are silent."""
    teaching = config.get("teacher")
    if not teaching or not teaching["start"]:
        return
    path = Path(teaching["run"]) / WEIGHTS
    tensors, _ = read_tensors(path)
    if config.get("head_net"):  # the teacher is a part of the network
        tensors = {re.sub(r"^net\.", "net.net.", name): each for name, each in tensors.items()}
    new = re.compile(r".*\.(told|gains)\.of_\w+|.*net\.head\.")
    known = {match[0] for name in tensors if (match := new.match(name))}
    own = {
        name: each
        for name, each in model.state_dict().items()
        if (match := new.match(name)) and match[0] not in known
    }
    load_weights(model, {**own, **tensors}, path)
