"""Students: runs that learn from another run.

A student has its teacher's data, SDE, network and prediction; the weights that teach it are known
by their content, so that another teacher's are refused when it goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from sdegen.checks import flag, optional, text, texts, whole
from sdegen.data import class_labels
from sdegen.distill import Pairs, pairs_of
from sdegen.files import claim, read_header, write_tensors
from sdegen.losses.inside import layers
from sdegen.model.score import ScoreModel
from sdegen.runs.begun import as_recorded
from sdegen.runs.build import build
from sdegen.runs.folder import load_run
from sdegen.runs.heads import with_head
from sdegen.runs.kept import with_kept
from sdegen.runs.network import parameters
from sdegen.runs.weights import WEIGHTS, content_of
from sdegen.solvers.jump import Student
from sdegen.solvers.registry import node as node_of
from sdegen.solvers.stochastic import DDIM

TAUGHT = "sdegen.runs.students.teacher"
"""The ``_target_`` of a teacher in a loss."""

INHERITED = ("sde", "net", "model", "data", "conditional", "sigma_data", "coder")
"""What a student has of its teacher."""

FACTS = ("shape", "dim", "channels", "dims", "classes")
"""What a network is told of its data."""

PAIRS = "pairs.safetensors"


@dataclass(frozen=True)
class Teaching:
    """Who teaches, and how its student begins.

    run: the teacher's folder.  start: whether the student begins with its weights.  net: settings
    of its network that are others than the teacher's, as ``{width: 16}``.  numbers: what
    the student's network is told beside, as "jump".  flow_only: whether the student is a model of
    a flow alone.  pairs: None, or how many pairs of the teacher's to train on, and how to make
    them, as ``{n: 20000, solver: {...}, nfe: 40}``.  rounds: of a progressive student, so many
    steps one after another, each round's student the next one's teacher, in a folder of its own.
    """

    run: str | None = None
    start: bool = True
    net: dict[str, Any] = field(default_factory=dict)
    numbers: list[str] = field(default_factory=list)
    flow_only: bool = False
    pairs: dict[str, Any] | None = None
    rounds: list[int] | None = None

    def __post_init__(self) -> None:
        optional(text, "teacher.run", self.run)
        flag("teacher.start", self.start), flag("teacher.flow_only", self.flow_only)
        texts("teacher.numbers", self.numbers)
        if self.net and self.start:
            raise ValueError(
                "A student of another network (teacher.net) cannot begin with its teacher's "
                "weights: teacher.start=false."
            )
        if self.pairs is not None:
            whole("teacher.pairs.n", self.pairs.get("n"))  # type: ignore[arg-type]
        for steps in self.rounds or ():
            whole("teacher.rounds", steps)


def in_rounds(config: dict[str, Any], folder: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """The runs that a configuration is, one after another, and their folders: itself, or a round
    for each of ``teacher.rounds``, of which all but the first halve what is there.

    ValueError for rounds that do not halve, and of another loss than progressive distillation.
    """
    teaching = Teaching(**(config.get("teacher") or {}))
    if not teaching.rounds:
        yield config, folder
        return
    if "steps" not in config["loss"] or "inner" not in config["loss"]:
        raise ValueError("teacher.rounds are of loss=progressive, which has steps and inner.")
    if any(a != 2 * b for a, b in pairwise(teaching.rounds)):
        raise ValueError(f"Rounds halve their steps, as [32, 16, 8, 4], not {teaching.rounds}.")
    by, inner = teaching.run, config["loss"]["inner"]
    for steps in teaching.rounds:
        loss = {**config["loss"], "steps": steps, "inner": inner}
        loss["teacher"] = {**loss["teacher"], "run": by}
        here = folder / f"{steps}-steps"
        round_of = {**config["teacher"], "run": by, "rounds": None}
        yield {**config, "loss": loss, "teacher": round_of}, here
        by, inner = str(here), 2


def teacher(run: str, content: str | None = None, packages: Sequence[str] = ()) -> ScoreModel:
    """The model of a finished run, at rest and on the host, from where a loss takes it to its
    data's device; ValueError where its weights are not those that are expected, or are not there.
    """
    folder = Path(run)
    if content is not None and (found := content_of(folder)) != content:
        raise ValueError(
            f"The teacher in {folder} has other weights ({found}) than the one that the student "
            f"began with ({content}): bring those back, or begin anew (name=...)."
        )
    return load_run(folder, list(packages), "cpu").model.requires_grad_(False)


def as_student(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with what its teacher's run has, and with the content of its weights;
    itself where nobody teaches.

    ValueError for a loss that needs a teacher where there is none.
    """
    teaching = Teaching(**(config.get("teacher") or {}))
    if teaching.run is None:
        if teaching.pairs is not None or taught(config["loss"]) or config.get("head_net"):
            raise ValueError(
                "This experiment learns from a run that is finished: give teacher.run=outputs/..."
            )
        return {name: value for name, value in config.items() if name != "teacher"}
    if config.get("head_net") and not teaching.start:
        raise ValueError("A head is of its teacher's own network: leave out teacher.start=false.")
    folder = Path(teaching.run)
    theirs = with_kept(as_recorded(read_header(folder / WEIGHTS)["config"]), folder)
    config = {**config, **{name: theirs[name] for name in INHERITED if name in theirs}}
    if "model" not in theirs:
        raise ValueError(
            f"{folder} is a run of an autoencoder, which says nothing at any level: take one of a "
            "score model, in its latents for one."
        )
    if theirs.get("task"):
        raise ValueError(f"{folder} was trained to restore, and teaches nobody.")
    if theirs.get("adapter"):
        raise ValueError(f"{folder} is an adapter over another run, and teaches nobody.")
    if theirs.get("text"):
        raise ValueError(f"{folder} takes texts, which no student is told yet: it teaches nobody.")
    for name in ("task", "text"):
        if config.get(name):
            raise ValueError(
                f"A student has what its teacher has, and the one in {folder} has no {name}: "
                f"leave {name} out."
            )
    refuse_student(folder, theirs, config["loss"])
    refuse_net(teaching.net, theirs["net"], config["packages"])
    config["net"] = {**config["net"], **teaching.net}
    before = list(config["net"].get("numbers") or [])
    numbers = [*before, *(name for name in teaching.numbers if name not in before)]
    if numbers:
        config["net"] = {**config["net"], "numbers": numbers}
    flow_only = teaching.flow_only or bool(theirs["model"].get("flow_only"))
    config["model"] = {**config["model"], **({"flow_only": True} if flow_only else {})}
    content = content_of(folder)
    config["loss"] = with_content(config["loss"], content)
    taught_by = {name: value for name, value in asdict(teaching).items() if name != "rounds"}
    return {**config, "teacher": {**taught_by, "content": content}}


def refuse_net(net: Mapping[str, Any], theirs: dict[str, Any], packages: Sequence[str]) -> None:
    """ValueError for settings of a student's network that its teacher's does not have, and that
    are facts of the data."""
    asked = parameters({**theirs, **net}, packages)
    kind = str({**theirs, **net}.get("_target_")).rpartition(".")[2]
    if any(each.kind is each.VAR_KEYWORD for each in asked.values()):
        asked = {}
    for name, value in net.items():
        if name in FACTS:
            raise ValueError(
                f"teacher.net.{name}={value} is given by the data, which a student has of its "
                "teacher: leave it out."
            )
        if asked and name not in asked and not name.startswith("_"):
            raise ValueError(
                f"teacher.net.{name}={value} is no setting of {kind}, the teacher's network: say "
                f"~teacher.net.{name}, or take a teacher that has it, as wavelets an ADM has."
            )


def refuse_student(folder: Path, theirs: Mapping[str, Any], loss: Mapping[str, Any]) -> None:
    """ValueError for a teacher that is a student itself: it knows its own steps alone, which only
    progressive distillation asks for."""
    own = theirs.get("sampler")
    if own is None:
        return
    halves = str(own["_target_"]).endswith("Student") and "inner" in innermost(loss)
    if not halves:
        kind = str(own["_target_"]).rpartition(".")[2]
        raise ValueError(
            f"The teacher in {folder} is a student itself, which {kind} samples and nothing else: "
            f"take its own teacher, {theirs['teacher']['run']}."
        )


def innermost(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node of the loss that others are around, itself where none is."""
    while isinstance(node.get("loss"), Mapping):
        node = node["loss"]
    return node


def taught(node: Any) -> bool:
    """Whether a loss's node has a teacher in it."""
    if isinstance(node, Mapping):
        return node.get("_target_") == TAUGHT or any(map(taught, node.values()))
    return False


def with_content(node: Any, content: str) -> Any:
    """A loss's node whose teacher is known by its content."""
    if not isinstance(node, Mapping):
        return node
    told = {name: with_content(value, content) for name, value in node.items()}
    return {**told, "content": content} if told.get("_target_") == TAUGHT else told


def known_by_content(config: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint keeps of who taught and by which loss: not where the teacher lies."""
    if "teacher" not in config:
        return {}
    teaching = {name: value for name, value in config["teacher"].items() if name != "run"}
    return {"teacher": teaching, "loss": without_place(config["loss"])}


def without_place(node: Any) -> Any:
    """A loss's node whose teacher does not say where it lies."""
    if not isinstance(node, Mapping):
        return node
    left = ("run",) if node.get("_target_") == TAUGHT else ()
    return {name: without_place(value) for name, value in node.items() if name not in left}


def pairs_for(config: dict[str, Any], folder: Path) -> Pairs | None:
    """The pairs that a student learns from, made once and kept in its folder; None where it learns
    from data.

    ValueError for pairs that another teacher made, or that were made otherwise.
    """
    teaching = config.get("teacher")
    if not teaching or teaching["pairs"] is None:
        return None
    if every := config["train"]["validate_every"]:
        raise ValueError(
            f"train.validate_every = {every}, but held-out data have no pairs to take this loss "
            "of: leave it out."
        )
    path, made_by = folder / PAIRS, {"by": teaching["content"], "how": teaching["pairs"]}
    if path.is_file():
        about = read_header(path)
        if {name: about.get(name) for name in made_by} != made_by:
            raise ValueError(
                f"The pairs {path} are another teacher's, or were made otherwise: choose another "
                "run folder (name=...), or delete them."
            )
        return Pairs.read(path)
    claim(folder)
    how = dict(teaching["pairs"])
    n, size = how.pop("n"), how.pop("batch_size", 256)
    run = load_run(Path(teaching["run"]), config["packages"], config["train"]["device"])
    for name in ("solver", "walk"):
        how[name] = build(how.get(name), config["packages"]) or None
    y = class_labels(n, run.counts) if run.counts else None
    pairs = pairs_of(
        run.model,
        n,
        run.shape,
        seed=int(how.pop("seed", 0)),
        batch_size=size,
        y=y,
        classes=len(run.counts),
        **how,
    )
    tensors = {"pairs": pairs.pairs} | ({"y": pairs.y} if pairs.classes else {})
    write_tensors(path, tensors, {"classes": pairs.classes, **made_by})
    return pairs


def sampled_by(loss: Any, config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that says what samples the students of a loss, or of one inside it, and
    compares that alone; of a flow alone DDIM, which takes any budget.

    ValueError where a teacher that walks its own walk is asked between its levels.
    """
    for each in layers(loss):
        if numbers := getattr(each, "told", None):
            config = {**config, "told": numbers}
    student = next((each for each in layers(loss) if hasattr(each, "solver")), None)
    if student is None:
        alone = {"ddim": node_of(DDIM())} if config["model"].get("flow_only") else None
        return (
            {**config, "evaluate": {**config["evaluate"], "solvers": alone}} if alone else config
        )
    solver = student.solver
    config = {**config, "sampler": node_of(solver)}
    evaluate = {**config["evaluate"], "solvers": {"student": node_of(solver)}}
    if isinstance(solver, Student):
        evaluate["budgets"] = [len(solver.times) - 1]
        config["walk"] = None  # it comes with its own
        refuse_between(student, config)
    return {**config, "evaluate": evaluate}


def refuse_between(loss: Any, config: dict[str, Any]) -> None:
    """ValueError for a teacher that is a student itself, on another walk than its own."""
    theirs = read_header(Path(config["teacher"]["run"]) / WEIGHTS)["config"].get("sampler") or {}
    known = theirs.get("times")
    if known is None:
        return
    fine = torch.cat([loss.times[:, :-1].flatten(), loss.times[-1:, -1]])
    at = torch.tensor(known, dtype=torch.float64)
    if fine.shape != at.shape or not torch.allclose(fine, at, rtol=1e-6, atol=1e-9):
        raise ValueError(
            f"The teacher is a student itself, of {len(known) - 1} steps on its own walk, and "
            f"this one would ask it at {len(fine) - 1} others: take loss.inner=2 and "
            f"loss.steps={(len(known) - 1) // 2}, on the same grid."
        )


def told(model: Any, **numbers: float) -> Any:
    """A model whose network is told numbers, for all samples alike; ValueError for one of a
    network that is not told any, as a wrapper."""
    if not hasattr(model, "given"):
        raise ValueError(f"{type(model).__name__} is told nothing: numbers are a network's.")
    return model.given(numbers)


USUAL = "dpmpp-"
"""What the name of samples' folder begins with where no solver is chosen."""


def as_sampled(config: dict[str, Any], said: Sequence[str]) -> dict[str, Any]:
    """The configuration of ``sdegen-sample`` for a student's run: its own solver, walk and calls,
    where the command does not choose; for another run itself, with the head of its own where a
    learned variance is chosen (``with_head``).

    said: the command's choices, as "solver=heun".  ValueError for a solver, a walk or a last call
    that the run's network was not trained for, and for a folder of rounds.
    """
    folder = Path(str(config.get("run")))
    if not (folder / WEIGHTS).is_file() and (parts := sorted(folder.glob(f"*-steps/{WEIGHTS}"))):
        raise ValueError(
            f"{folder} holds rounds, each a run of its own: run={parts[0].parent}, for one."
        )
    try:
        theirs = read_header(folder / WEIGHTS)["config"]
    except (KeyError, ValueError):
        return config  # the command says what is wrong with it
    own = theirs.get("sampler")
    if own is None:
        return {**config, "solver": with_head(config["solver"], theirs, folder)}
    chosen = {each.partition("=")[0].lstrip("+~") for each in said}
    consistent = str(innermost(theirs["loss"]).get("_target_")).endswith("Consistency")
    for name in sorted(chosen):
        kind, _, part = name.partition(".")
        if kind == "solver" and (part or config["solver"].get("_target_") != own["_target_"]):
            alone = str(own["_target_"]).rpartition(".")[2]
            raise ValueError(
                f"The run in {folder} is a student, which {alone} samples and nothing else: leave "
                "out solver."
            )
        if kind == "walk" and consistent:
            raise ValueError(
                f"The run in {folder} is a consistency model, which knows the way to the end "
                "alone: leave out walk."
            )
    if config.get("denoise") and (consistent or "times" in own):
        raise ValueError(
            f"The run in {folder} is a student, whose network was never trained where its walk "
            "ends, which denoise=true would ask it at: leave it out."
        )
    name = str(config["name"])
    if "solver" not in chosen and name.startswith(USUAL):
        name = f"own-{name.removeprefix(USUAL)}".replace("own-default", "own", 1)
    config = {**config, "solver": own, "name": name}
    if config["nfe"] is None and config["steps"] is None and "times" not in own:
        config["nfe"] = max(theirs["evaluate"]["budgets"])  # the largest that it was compared at
    return config if "walk" in chosen else {**config, "walk": theirs.get("walk")}
