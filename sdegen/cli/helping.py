"""What a command says of itself: ``--help`` and ``--version``, read from its file in conf/."""

from __future__ import annotations

import platform
import re
import shutil
import textwrap
from importlib.resources import files
from typing import Any

from sdegen.checks import nearest

USES = """\
{command} GROUP=NAME SETTING=VALUE ... A setting within another one is written with a dot, as
train.steps=500; +SETTING=VALUE adds one that is not there, ~SETTING takes one away.
"""
ALSO = """\
--cfg job shows all settings as they would be, and runs nothing. -m runs every combination of
GROUP=A,B and SETTING=1,2. --config-dir DIR adds groups of yours. --hydra-help has the rest.
"""


def asked(arguments: list[str]) -> str | None:
    """The first of --help and --version that is asked for."""
    known = {"--help": "help", "-h": "help", "--version": "version"}
    return next((known[each] for each in arguments if each in known), None)


def version() -> str:
    """This package's, and of what it stands on."""
    from importlib.metadata import version as installed

    import torch

    import sdegen

    hydra, python = installed("hydra-core"), platform.python_version()
    return (
        f"sdegen {sdegen.__version__} (torch {torch.__version__}, Hydra {hydra}, Python {python})"
    )


def help_of(command: str, config_name: str) -> str:
    """A command's groups with the names in each, and its settings with what they mean."""
    width = min(shutil.get_terminal_size().columns, 99)
    about, _, settings = parts(config_name)

    def filled(text: str, start: str = "", rest: str = "") -> str:
        return textwrap.fill(
            " ".join(text.split()), width, initial_indent=start, subsequent_indent=rest,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip

    told = [filled(about), "", filled(USES.format(command=command))]
    groups = choices(config_name)
    if groups:
        told += ["", "Groups, what each is by itself, and its other names:"]
    for key, (usual, names) in groups.items():
        others = ", ".join(name for name in names if name not in ("schema", usual))
        begun = f"{key}={usual or ''}"
        both = f"{begun}, or {others}" if usual and others else begun + others
        told.append(filled(both, "  ", "      "))
    told += ["", "Settings, as they are by themselves (null: none):"]
    told += [f"  {line}".rstrip() for line in settings]
    if "train" in groups:
        lines = [f"# {line}" for line in comments("train/default")] + parts("train/default")[2]
        told += ["  train:", *(f"    {line}".rstrip() for line in lines)]
    return "\n".join([*told, "", filled(ALSO)])


def parts(config_name: str) -> tuple[str, list[tuple[str, str | None]], list[str]]:
    """Of a file of conf: its first comment, its defaults (group, name), and its settings as lines,
    without Hydra's own and those of ``train``, which have a file."""
    _, body = re.split(r"^defaults:", text_of(config_name), maxsplit=1, flags=re.M)
    rows = re.findall(r"^  - ([\w@./ ]+): (\S+)", body, re.M)
    defaults = [(key, None if name == "null" else name) for key, name in rows]
    _, *blocks = re.split(r"^(?=\w+:)", body, flags=re.M)
    kept = "".join(block for block in blocks if not re.match(r"(hydra|train):", block))
    return " ".join(comments(config_name)), defaults, kept.strip("\n").splitlines()


def comments(config_name: str) -> list[str]:
    """The lines of the comment that a file of conf begins with."""
    told = list[str]()
    for line in text_of(config_name).splitlines():
        if not line.startswith("#"):
            break
        told.append(line.removeprefix("#").removeprefix(" "))
    return told


def text_of(config_name: str) -> str:
    """A file of conf."""
    return (files("sdegen.conf") / f"{config_name}.yaml").read_text(encoding="utf-8")


def choices(config_name: str) -> dict[str, tuple[str | None, list[str]]]:
    """The groups that a command has: what each is by itself, and its names; of one that is there
    twice the second time no more than that it has those of the first."""
    known = dict[str, tuple[str | None, list[str]]]()
    seen = dict[str, str]()
    for key, usual in parts(config_name)[1]:
        group, _, place = key.partition("@")
        if key.startswith("override "):
            continue
        if place.startswith("evaluate."):  # there are several, and may be more
            key, usual = f"+{group}@evaluate.solvers.NAME", None
        if group not in seen:
            known[key] = usual, names_of(group)
        elif key not in known:
            known[key] = usual, [f"another one that {seen[group]} has"]
        seen.setdefault(group, key)
    return known


def names_of(group: str) -> list[str]:
    """The names of a group: files of conf, in its folders too, and what the code has stored."""
    from hydra.core.config_store import ConfigStore

    folder, found = files("sdegen.conf") / group, set[str]()
    waiting: list[tuple[str, Any]] = [("", folder)] if folder.is_dir() else []
    while waiting:
        before, place = waiting.pop()
        for each in place.iterdir():
            if each.is_dir() and not each.name.startswith("_"):
                waiting.append((f"{before}{each.name}/", each))
            elif each.name.endswith(".yaml"):
                found.add(before + each.name.removesuffix(".yaml"))
    stored: Any = ConfigStore.instance().repo.get(group, {})
    return sorted(found | {name.removesuffix(".yaml") for name in stored})


def refuse_unread(config_name: str, config: str) -> None:
    """ValueError for a setting that the command line adds and that nothing reads.

    config: the configuration as YAML, in which others may refer to it.
    """
    from hydra.core.hydra_config import HydraConfig

    _, defaults, settings = parts(config_name)
    groups = {key.removeprefix("override ").partition("@")[0] for key, _ in defaults}
    own = {line.partition(":")[0] for line in settings if re.match(r"\w+:", line)}
    known = {*groups, *own, "train", "hydra", *HydraConfig.get().runtime.choices}
    for each in HydraConfig.get().overrides.task:
        key = re.match(r"\+{1,2}(\w+)(\.[\w.]+)?=", each)
        if key and key[1] not in known and "${" + key[1] not in config:
            hint = nearest(key[1], known) or f"there are {', '.join(sorted(own))}."
            raise ValueError(f"Nothing reads the setting {key[1]} of {each}: {hint}")
