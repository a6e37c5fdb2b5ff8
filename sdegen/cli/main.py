"""What the commands share: Hydra's entry, and errors as one sentence."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sdegen.checks import folder_name, nearest
from sdegen.cli.helping import asked, help_of, refuse_unread, version
from sdegen.files import short


class Failed(Exception):
    """A job's error as the sentence that its user reads."""


@dataclass
class Jobs:
    """The jobs of a sweep in this process: how many, and the sentences of those that failed."""

    done: int = 0
    failed: list[str] = field(default_factory=list)


def hydra_main(task: Callable[[dict[str, Any]], Any], config_name: str) -> None:
    """Run a task on its resolved configuration, under Hydra.

    What a user got wrong ends in one sentence, not in a traceback. In a sweep a job that fails
    says so, and the others go on; then the failed ones are listed, and the command has failed.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    store_groups()
    if wish := asked(sys.argv[1:]):
        with quiet_pipe():
            print(version() if wish == "version" else help_of(program(), config_name))
        return
    OmegaConf.register_new_resolver("file_name", short, replace=True)
    OmegaConf.register_new_resolver("and", lambda text: text and f"-{text}", replace=True)
    OmegaConf.register_new_resolver("folder", partial(folder_name, "name"), replace=True)
    # Hydra then raises instead of printing, and the sentence is ours to write.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    wrong = (HydraException, OmegaConfBaseException, ValueError, OSError)
    jobs = Jobs()

    @functools.wraps(task)
    def spoken(cfg: Any) -> Any:
        jobs.done += 1
        try:
            refuse_empty()
            refuse_unread(config_name, OmegaConf.to_yaml(cfg))
            config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
            return task(config)
        except BrokenPipeError:
            raise
        except wrong as error:
            sentence = explain(error)
            if not sweeping():
                sys.exit(f"sdegen: {sentence}")
        except Exception as error:
            if not sweeping():
                raise
            traceback.print_exc()  # a bug of one job is not to cost the others
            sentence = f"{type(error).__name__}: {explain(error)}"
        jobs.failed.append(f"{overrides()}: {sentence}")
        print(f"sdegen: {jobs.failed[-1]}", file=sys.stderr)
        raise Failed(sentence)

    entry = hydra.main(
        version_base="1.3", config_path="pkg://sdegen.conf", config_name=config_name
    )
    with plain_warnings(), quiet_pipe():
        try:
            entry(spoken)()
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
        except BrokenPipeError:
            raise
        except (Failed, *wrong) as error:
            if jobs.failed:
                number = f"{len(jobs.failed)} of {jobs.done} jobs failed"
                sys.exit("\n  ".join([f"sdegen: {number}:", *jobs.failed]))
            sys.exit(f"sdegen: {explain(error)}")
        except TypeError as error:
            if not in_hydra(error):
                raise
            sys.exit(
                "sdegen: Hydra cannot read the overrides: a group takes one name, as in "
                f"walk=uniform, or a list of names ({error})."
            )


def in_hydra(error: BaseException) -> bool:
    """Whether an error came up in Hydra's own code, as of a list of numbers for a group."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return "hydra" in Path(last).parts


def sweeping() -> bool:
    """Whether the job under way is one of several."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def overrides() -> str:
    """What the job under way has been told."""
    from hydra.core.hydra_config import HydraConfig

    return " ".join(HydraConfig.get().overrides.task)


def refuse_empty() -> None:
    """ValueError for settings that are given as {}, which Hydra merges into what there is."""
    from hydra.core.hydra_config import HydraConfig

    for each in HydraConfig.get().overrides.task:
        key, _, value = each.partition("=")
        if re.fullmatch(r"\{\s*\}", value) and not key.startswith("+"):
            raise ValueError(
                f"{each} takes nothing away, since settings are merged: leave them out with "
                f"~{key}, or some of them with ~{key}.NAME."
            )


def program() -> str:
    """The command's name, as it was typed."""
    name = Path(sys.argv[0]).stem
    return name if name.startswith("sdegen-") else f"sdegen-{name}"


@contextlib.contextmanager
def quiet_pipe() -> Iterator[None]:
    """A reader that has seen enough, as head, ends the command without a word."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still to be written would be told of at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Warnings as sentences, without the line of code that they came up in."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"sdegen: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def store_groups() -> None:
    """What Hydra's groups hold beside the files of conf: the schema and the solvers."""
    from hydra.core.config_store import ConfigStore

    from sdegen.solvers.registry import PARTIAL, RENAMED, entries
    from sdegen.training.settings import TrainSettings

    store = ConfigStore.instance()
    store.store(group="train", name="schema", node=TrainSettings)
    for name, entry in entries().items():
        store.store(group="solver", name=name, node=entry.config())
    for old, new in RENAMED.items():
        store.store(group="solver", name=old, node=entries()[new].config())
    for name, node in PARTIAL.items():
        store.store(group="solver", name=name, node=node)


KINDS = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
"""What OmegaConf calls what a setting is."""


def mistyped(text: str) -> str | None:
    """OmegaConf's and Hydra's words for a value that a setting cannot have, as a sentence."""
    told = re.match(r"\w+ raised while resolving interpolation: (.*)", text, re.S)
    if told:
        return " ".join(re.sub(r"\s+full_key: .*", "", told[1], flags=re.S).split())
    where = re.search(r"override \+*([\w.@/]+)=|full_key: (\S+)", text)
    name = where and (where[1] or where[2])
    unlike = r"Value '(.*?)' (?:of type '\w+' could not be converted to|is not a valid) (\w+)"
    value = re.search(unlike, text, re.S)
    if name and value:
        return f"{name} must be {KINDS.get(value[2], value[2])}, but it is {value[1]!r}."
    if other := re.search(r"Interpolation key '(.*?)' not found", text):
        return f"${{{other[1]}}} refers to a setting that there is not: give +{other[1]}=..."
    if name and re.search("is not Optional|Incompatible value 'None'", text):
        return f"{name} must have a value, but it is null."
    if name and re.search(r"Cannot assign \w+ to Dict", text):
        return f"{name} is a group of settings: say which, as {name}.SETTING=..."
    if "Config group override must be a string or a list. Got NoneType" in text:
        return (
            "a group takes one of its names, as sde=vp, and cannot be null: ~GROUP leaves it out."
        )
    return None


def explain(error: BaseException) -> str:
    """An error as a sentence; a misspelt key with the keys that exist."""
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError

    from sdegen.solvers.correctors import ALONE
    from sdegen.solvers.registry import CORRECTORS

    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.parent_node is not None:
        keys = sorted(str(key) for key in cause.parent_node if key != "hydra")
        where = cause.full_key or cause.key
        known = f"it must be one of {', '.join(keys)}" if keys else "there are none here"
        return f"there is no setting {where}: {known}."
    if isinstance(error, OSError) and error.filename and error.strerror:
        place = f"{error.filename2 or error.filename} cannot be used"
        if isinstance(error, FileExistsError | NotADirectoryError):
            return (
                f"{place}: there is a file where a folder is to be. Take another name, or move it."
            )
        return f"{place}: {error.strerror}."
    if isinstance(error, OverrideParseException):
        return (
            f"Hydra cannot read {error.override}: blanks and marks need quotes of their "
            """own within the shell's, as 'about="my words"'."""
        )
    text = str(error)
    if wrong := mistyped(f"{text} {cause or ''}"):
        return wrong
    unknown = re.search(
        r"Could not find '(\w+)/(\S+)'\s+Available options in \S+:\s+(.*?)\s+Config", text, re.S
    )
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing:
        key = re.search(r"full_key: (\S+)", text)
        # An interpolation names the setting that refers to it; the missing one is the value.
        name = key[1] if key and key[1].endswith(missing[1]) else missing[1]
        return f"the setting {name} has no value: give {name}=..."
    if unknown:
        group, name, known = unknown.groups()
        if group == "solver" and name in CORRECTORS:
            return ALONE
        hint = nearest(name, known.split())
        hint = f" ({hint})" if hint else ""
        return (
            f"Could not find '{group}/{name}'{hint}: {group} is one of {', '.join(known.split())}."
        )
    if isinstance(error, HydraException) and cause is not None and str(cause) not in text:
        text = f"{text} ({str(cause).splitlines()[0]})"
    return " ".join(text.split())
