"""What was used, as BibTeX: the papers that docstrings name, looked up in one table."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from importlib.resources import files
from typing import Any

import torch

from sdegen.model.denoiser import Denoiser
from sdegen.sampling.choice import Chooser
from sdegen.sde.process import SDE
from sdegen.solvers.registry import catalogue, named
from sdegen.solvers.solver import Solver
from sdegen.walks.grids import GRIDS
from sdegen.walks.walk import Walk

SOFTWARE = """@software{sdegen,
  title = {sdegen: a continuous-time SDE/ODE solver framework for score-based generative models},
  author = {{The sdegen authors}},
  version = {VERSION},
}
"""


CHOOSES = "chooses a solver and a walk: cite what it chose"
NAMED = re.compile(
    r"(?:[A-Z]\w+, )*[A-Z][\w-]+(?:,? & [A-Z][\w-]+| et al\.) \((?:19|20)\d\d[a-c]?\)"
)
"""Papers as docstrings name them."""


def cite(*used: Any) -> str:
    """BibTeX of what was used: sdegen itself, and each paper once, in the order of the arguments.

    used: models with their SDE and what they predict, guided ones too; SDEs, solvers, grids,
          climbs, weightings, losses, or any class or function whose docstring names its paper;
          the names of solvers, choosers and grids ("dpmpp", "recommended", "karras").

        print(sg.cite(model, sg.UniPC(), "karras"))

    Where a thing comes from is said in its docstring, and of a solver in its ``source`` in
    ``sg.solvers.catalogue()``; a comment names what has no paper, and papers that are named but
    are not in the table.

    ValueError for a string that is the name of neither a solver nor a grid, for what is
    neither a class, a function nor an object of one of sdegen's, and for times.
    """
    import sdegen

    table, papers, comments = entries(), dict[str, None](), []
    for thing in parts(used):
        found = papers_of(thing)
        papers |= dict.fromkeys(found)
        said = [*found, *(f"{paper} (not in sdegen's table)" for paper in unknown(thing))]
        nothing = CHOOSES if isinstance(thing, Chooser) else "no paper is named"
        comments.append(f"% {title(thing)}: {'; '.join(said) or nothing}\n")
    texts = [SOFTWARE.replace("VERSION", sdegen.__version__), *(table[paper] for paper in papers)]
    return "".join(dict.fromkeys(comments)) + "\n" + "\n".join(texts)


def parts(used: Iterable[Any]) -> Iterator[Any]:
    """What things are made of, one by one."""
    for each in used:
        thing = by_name(each) if isinstance(each, str) else each
        if isinstance(thing, Denoiser):
            yield from of_model(thing)
        elif isinstance(thing, partial):
            yield from parts([thing.func])
        else:
            yield checked(thing)


def checked(thing: Any) -> Any:
    """A class, a function, or an object of a class that says what it is; ValueError otherwise."""
    if isinstance(thing, Walk | torch.Tensor | list | tuple):
        raise ValueError(
            "cite takes a grid's name or function for a walk, but it got a "
            f"{type(thing).__name__}, whose times say nothing of where they are from."
        )
    module = type(thing).__module__
    if inspect.isclass(thing) or inspect.isroutine(thing) or isinstance(thing, Solver | Chooser):
        return thing
    if module.partition(".")[0] != "sdegen" and not isinstance(thing, SDE):
        raise ValueError(
            "cite takes classes, functions, objects of sdegen and names, but it got "
            f"{thing!r:.60} of type {type(thing).__name__}."
        )
    return thing


def of_model(model: Denoiser) -> Iterator[Any]:
    """A model's SDE and what it predicts, and before them what is around it."""
    inner = getattr(model, "model", None)
    if isinstance(inner, Denoiser):
        yield model
        yield from of_model(inner)
    else:
        yield model.sde
        yield model.target


def by_name(name: str) -> Any:
    """A grid or a solver; ValueError where there is neither."""
    return GRIDS[name] if name in GRIDS else named(name)


def papers_of(thing: Any) -> list[str]:
    """The papers, as "Lu et al. (2022b)", that a thing's docstring names, and the catalogue where
    it is a solver; only those that the table has."""
    text = told(thing)
    known = [(text.index(paper), paper) for paper in entries() if paper in text]
    return [paper for _, paper in sorted(known)]


def unknown(thing: Any) -> list[str]:
    """The papers that are named but that the table has not."""
    found = dict.fromkeys(NAMED.findall(told(thing)))
    return [paper for paper in found if not any(paper.endswith(each) for each in entries())]


def told(thing: Any) -> str:
    """A thing's docstring, after the catalogue's source where it is a solver."""
    kind = thing if callable(thing) and hasattr(thing, "__qualname__") else type(thing)
    text = " ".join((kind.__doc__ or "").split())
    if isinstance(thing, Solver):
        same = (
            each for each in catalogue().values() if each.cls is kind and each.build() == thing
        )
        text = " ".join([*(each.source for each in same), text])
    return text


def title(thing: Any) -> str:
    """A class's name, or a function's."""
    if isinstance(thing, Solver | Chooser):
        return type(thing).__name__
    return str(getattr(thing, "__name__", type(thing).__name__))


@lru_cache
def entries() -> dict[str, str]:
    """The table: every paper's entry by the name that it is cited by."""
    text = (files("sdegen.sampling") / "references.bib").read_text(encoding="utf-8")
    found = re.findall(r"^% (.*)\n(@(?:.*\n)*?\})$", text, re.M)
    return {name: f"{entry}\n" for name, entry in found}
