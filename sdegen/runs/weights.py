"""The weights of a finished run: by what they are known, and who begins with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sdegen.files import content, load_weights, read_tensors
from sdegen.model.score import ScoreModel

WEIGHTS = "model.safetensors"


def content_of(folder: Path) -> str:
    """The weights of a finished run, in a few letters that only these weights have."""
    return content(read_tensors(folder / WEIGHTS)[0])


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
