"""Telling: what a run's network is told of captions, in training and of samples."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from sdegen.checks import warn
from sdegen.data import stratified
from sdegen.data.parts import part
from sdegen.model.score import ScoreModel
from sdegen.runs.build import build
from sdegen.text import NO_TEXT, Captioned, Encoder, Reading, encoded

ENOUGH = 1000
"""Training captions that a run keeps, to be sampled as its data are."""


def build_text(node: Any, packages: Sequence[str] = ()) -> Encoder | None:
    """The text encoder of a configuration's ``text``; None without one."""
    return build(node, packages) if node else None


def with_text(config: dict[str, Any], data: Any) -> dict[str, Any]:
    """A configuration whose text encoder knows all of its settings, those that are open from the
    captions of the training data; without ``text`` where there is none.

    Raises ValueError for data without captions, a stream, and what captions do not go with.
    """
    if not config.get("text"):
        return {name: value for name, value in config.items() if name != "text"}
    name = str(config["text"].get("_target_")).rpartition(".")[2]
    if config["conditional"]:
        raise ValueError(
            f"conditional=true tells the network classes, and text={name} captions: leave one of "
            "them out."
        )
    captions = getattr(data, "captions", ())
    if isinstance(data, IterableDataset) or not captions:
        raise ValueError(
            f"text={name} tells the network captions, but the data have none: take "
            "data=captioned_digits or emoji, or a folder with captions (docs/data.md)."
        )
    encoder = build(config["text"], config["packages"]).learn(captions)
    return {**config, "text": {**config["text"], **encoder.known}}


def captioned(model: ScoreModel, encoder: Encoder, data: Any) -> Captioned:
    """Training data whose items come with what their captions say, each encoded once; a reader
    that takes something of them is fitted to them."""
    told, which = encoded(encoder, data.captions)
    if isinstance(model.net, Reading):
        model.net.reader.fit(told["tokens"], told["mask"])
    return Captioned(data, told, which)


def tellable(encoder: Encoder, test: Any) -> Captioned | None:
    """Held-out data whose items come with what their captions say. Those that cannot be told, for
    a word that no training caption has, are left out with a warning; None where all are."""
    captions = () if test is None else getattr(test, "captions", ())
    parts = understood(encoder, captions)
    kept = [i for i, caption in enumerate(captions) if caption in parts]
    if len(kept) < len(captions):
        warn(
            f"{len(captions) - len(kept)} of {len(captions)} held-out captions have words that no "
            "training caption has, or too many: the held-out loss is taken without them."
        )
    if not kept:
        return None
    number = {caption: k for k, caption in enumerate(parts)}
    which = torch.tensor([number[captions[i]] for i in kept])
    names = next(iter(parts.values()))
    told = {name: torch.cat([each[name] for each in parts.values()]) for name in names}
    return Captioned(part(test, torch.tensor(kept)), told, which)


def understood(encoder: Encoder, captions: Sequence[str]) -> dict[str, Mapping[str, Tensor]]:
    """What an encoder says of each of some captions, without those that it cannot tell."""
    parts = dict[str, Mapping[str, Tensor]]()
    for caption in dict.fromkeys(captions):
        with contextlib.suppress(ValueError):
            parts[caption] = encoder([caption])
    return parts


def kept_captions(data: Any) -> list[str]:
    """Captions of the training data, ``ENOUGH`` at most, drawn at random: what samples are told
    where nothing is said. A smaller number is the beginning of a larger one."""
    captions = data.captions
    order = stratified(torch.zeros(len(captions), dtype=torch.int64))[:ENOUGH]
    return [captions[i] for i in order.tolist()]


@dataclass(frozen=True)
class Prompts:
    """Texts that samples are told in turn: sample i the text i // each mod k of these k.

    told: tokens (k, m, *) and mask (k, m) of the texts.  each: samples of one image, all told the
    same.
    """

    texts: tuple[str, ...]
    told: Mapping[str, Tensor]
    each: int = 1

    @classmethod
    def of(cls, encoder: Encoder, texts: Sequence[str], each: int = 1) -> Prompts:
        """ValueError for a text that cannot be told."""
        told, which = encoded(encoder, texts)
        return cls(tuple(texts), {name: values[which] for name, values in told.items()}, each)

    def numbers(self, n: int, first: int = 0) -> Tensor:
        """Which text the samples from ``first`` on are told (n,)."""
        return (first + torch.arange(n)) // self.each % len(self.texts)

    def given(self, model: Any, n: int, first: int = 0) -> Any:
        """A model that is told the texts of n samples from ``first`` on."""
        at = self.numbers(n, first)
        return model.given(**{k: v[at].to(model.device) for k, v in self.told.items()})


def without_text(without: Mapping[str, Any], encoder: Encoder | None) -> dict[str, Any]:
    """What stands in place of a condition, where a text is among it the tokens of that text: a
    negative prompt. ValueError for a run that takes no text."""
    if "prompt" not in without:
        return dict(without)
    if encoder is None:
        raise ValueError(
            f"guidance.without.prompt={without['prompt']!r} is of runs that take a text, and this "
            "one does not."
        )
    told = encoder([str(without["prompt"])])
    rest = {name: value for name, value in without.items() if name != "prompt"}
    return rest | {name: values[0] for name, values in told.items()}


def null_condition(text: bool, classes: int) -> dict[str, Any] | None:
    """What a network is told where it is told nothing: a caption without tokens where it takes a
    text, the label of no class where it takes classes; None of one that is never told anything."""
    if text:
        return dict(NO_TEXT)
    return {"y": classes} if classes else None
