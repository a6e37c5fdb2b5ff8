"""The score model of a run, whose network gets of the data's facts what its signature asks for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from inspect import Parameter
from pkgutil import resolve_name
from typing import Any

from torch import nn

from sdegen.checks import warn
from sdegen.model.score import ScoreModel
from sdegen.networks import ADM, MLP, DiT, Joined, Transformer, UNet
from sdegen.runs.build import build, build_task, refuse_strangers
from sdegen.runs.telling import build_text
from sdegen.text import Encoder, Reading

OURS = (MLP, UNet, ADM, DiT, Transformer)
USUAL = ("dim", "channels", "classes")
"""What a network gets that takes any keyword and names none of them."""


def build_model(config: dict[str, Any], shape: Sequence[int], classes: int) -> ScoreModel:
    """The score model of a resolved configuration, for data of a shape and number of classes."""
    packages, conditional = config["packages"], config["conditional"]
    task = build_task(config.get("task"), packages)
    beside = task.beside(shape[0]) if task else 0
    heads = int(config["model"].get("heads", 1))
    asked = classes if conditional else 0
    encoder = build_text(config.get("text"), packages)
    numbers = task.numbers if task else ()
    net = build_network(config["net"], packages, shape, asked, beside, heads, encoder, numbers)
    said = dict(config["model"])
    if config.get("head_net"):
        if heads != 1 or beside:
            raise ValueError(
                "head_net is a second output beside a network that has one, and restores nothing."
            )
        net = Joined(net, build_network(config["head_net"], packages, shape, asked))
        said["heads"] = 2
    if not conditional:
        refuse_wanting(net, str(config["net"].get("_target_")))
    reader = None if encoder is None else encoder.reader()
    net = net if reader is None else Reading(net, reader)
    sde = build(config["sde"], packages)
    try:
        return ScoreModel(net, sde, **said)
    except TypeError as error:
        raise ValueError(f"The model {config['model']} cannot be built: {error}.") from error


def facts(shape: Sequence[int], classes: int, beside: int = 0, heads: int = 1) -> dict[str, Any]:
    """What samples of a shape say of themselves, by the names that a network may ask for.

    shape: all of it.  dim: of vectors.  channels: of anything else, whose first axis they are, and
    dims: the number of axes that follow.  length: of series.  size: of images and volumes whose
    sides are equal.  classes: how many labels the network will be given, 0 for none.  beside: the
    channels of what it is shown of the data, where it is trained for a task.  out: of its output,
    where a model of two heads wants more than there are.
    """
    first, *space = shape
    found: dict[str, Any] = {"shape": list(shape), "classes": classes}
    if beside:
        found["beside"] = beside
    if heads > 1:
        found["out"] = heads * first
    if not space:
        return found | {"dim": first}
    found |= {"channels": first, "dims": len(space)}
    if len(space) == 1:
        return found | {"length": space[0]}
    return found | ({"size": space[0]} if len(set(space)) == 1 else {})


def build_network(
    node: dict[str, Any],
    packages: Sequence[str],
    shape: Sequence[int],
    classes: int,
    beside: int = 0,
    heads: int = 1,
    text: Encoder | None = None,
    numbers: Sequence[str] = (),
) -> Any:
    """The network of a configuration node, for data of a shape; with ``classes`` > 0 one that is
    given labels, with ``beside`` > 0 one that is given c, of so many channels, and with a text
    encoder one that is given tokens and a mask: its ``length`` is then that of these. numbers:
    names of those that a task tells it.

    It gets of ``facts`` what its signature names and the node does not say. ValueError with one
    sentence where that is not enough, where it is no module or not called as net(x, t), and where
    a network that is to get labels takes none.
    """
    known, target = facts(shape, classes, beside, heads), str(node.get("_target_"))
    if text is not None:
        known |= {"token_width": text.width, "words": text.words, "length": text.most}
    asked = parameters(node, packages)
    if numbers:
        node = {**node, "numbers": [*node.get("numbers", ()), *numbers]}
    node = without_ours(node, asked, target)
    given = {name: value for name, value in known.items() if name in asked and name not in node}
    needed = [
        name
        for name, each in asked.items()
        if each.default is Parameter.empty and each.kind not in OPEN and name not in node
    ]
    missing = [name for name in needed if name not in given]
    if missing and "_args_" not in node:
        sayings = ", ".join(f"+net.{name}=..." for name in missing)
        raise ValueError(
            f"{target} asks for {', '.join(missing)}, but samples of shape {tuple(shape)} only "
            f"have {', '.join(known)} to give: take another network (net=mlp is for vectors, "
            f"net=unet for series and images), or say {sayings}."
        )
    unnamed = {}
    if any(each.kind is Parameter.VAR_KEYWORD for each in asked.values()):
        unnamed = {k: v for k, v in known.items() if k in USUAL and k not in {*asked, *node}}
    try:
        net = build(node, packages, **given, **unnamed)
    except ValueError as error:
        if not unnamed:
            raise
        raise ValueError(
            f"{error} As it takes any keyword, it was given {', '.join(unnamed)} of the data; one "
            f"that names those it wants, of {', '.join(known)}, gets these alone."
        ) from error
    refuse_deaf(net, target, classes)
    if beside:
        refuse_blind(net, target, numbers)
    if text is not None:
        refuse_wordless(net, target)
    return net


def without_ours(
    node: dict[str, Any], asked: Mapping[str, Parameter], target: str
) -> dict[str, Any]:
    """The node of a network of one's own without those settings of ours, whose file it was written
    over, that it does not take; a warning names them."""
    if not asked or target.startswith("sdegen.") or set(OPEN) & {e.kind for e in asked.values()}:
        return node
    ours = {name for net in OURS for name in inspect.signature(net).parameters}
    left = [name for name in node if name in ours and name not in asked]
    if left:
        warn(
            f"{target} does not take {', '.join(left)}, set for sdegen's networks by net=unet, "
            "net=mlp or an experiment: left out (net=own brings none)."
        )
    return {name: value for name, value in node.items() if name not in left}


OPEN = (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)


def parameters(node: dict[str, Any], packages: Sequence[str]) -> dict[str, Parameter]:
    """The parameters of what a node would call; none where it is not there, which ``build``
    says, or has no signature."""
    refuse_strangers(node, packages)
    try:
        return dict(inspect.signature(resolve_name(str(node.get("_target_")))).parameters)
    except Exception:  # whatever a module raises that is imported here
        return {}


def refuse_deaf(net: Any, target: str, classes: int) -> None:
    """ValueError for what is no module, and for a network that cannot be called with a state and
    a time, or with labels where there are ``classes``."""
    if not isinstance(net, nn.Module):
        raise ValueError(
            f"net._target_ must give an nn.Module, whose parameters are trained, but {target} "
            f"gives a {type(net).__name__}."
        )
    called = signature_of(net)
    if called is None:
        return
    takes, said = called.parameters, ", ".join(called.parameters)
    try:
        called.bind_partial("x", "t")
    except TypeError:
        raise ValueError(
            f"A network is called as net(x, t), with a state and a time, but {target} is called "
            f"with ({said}): let it take both, in this order."
        ) from None
    if not classes or "y" in takes:
        return
    if not any(each.kind is Parameter.VAR_KEYWORD for each in takes.values()):
        raise ValueError(
            f"conditional=true gives the network the class labels as y, but {target} is called "
            f"with ({said}): let it take y, or say conditional=false."
        )


def refuse_blind(net: nn.Module, target: str, numbers: Sequence[str]) -> None:
    """ValueError for a network that does not take what a task shows, and the numbers it tells."""
    called = signature_of(net)
    if called is None:
        return
    takes = called.parameters
    anything = [n for n, e in takes.items() if e.kind is Parameter.VAR_KEYWORD]
    if not anything and (deaf := [name for name in numbers if name not in takes]):
        raise ValueError(
            f"The task tells the network {', '.join(deaf)}, but {target} is called with "
            f"({', '.join(takes)}): take net=unet, or let it take that."
        )
    if "c" in takes:
        return
    # ``**numbers`` of ours are numbers, and no pictures.
    if set(anything) <= {"numbers"}:
        raise ValueError(
            f"A task gives the network what is seen of the data as c, but {target} is called with "
            f"({', '.join(called.parameters)}): take net=unet, or let it take c."
        )


def refuse_wordless(net: nn.Module, target: str) -> None:
    """ValueError for a network that does not take tokens."""
    called = signature_of(net)
    if called is not None and not {"tokens", "mask"} <= set(called.parameters):
        raise ValueError(
            f"text gives the network tokens and mask, but {target} is called with "
            f"({', '.join(called.parameters)}): take net=unet, or let it take both."
        )


def refuse_wanting(net: nn.Module, target: str) -> None:
    """ValueError for a network that cannot be called without a condition."""
    called = signature_of(net)
    if called is None:
        return
    try:
        called.bind("x", "t")
    except TypeError as error:
        raise ValueError(
            f"With conditional=false a network is called as net(x, t), but {target} is called "
            f"with ({', '.join(called.parameters)}): {error}. Give that a default, or say "
            "conditional=true, which gives the conditions of the data."
        ) from None


def signature_of(net: nn.Module) -> inspect.Signature | None:
    """What a network is called with; None where it does not say."""
    try:
        return inspect.signature(net.forward)
    except (TypeError, ValueError):
        return None
