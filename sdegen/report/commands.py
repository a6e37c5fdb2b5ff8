"""Commands that give a number again, from the configuration that a result was left with."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

Node = Mapping[str, Any]


def command(name: str, config: Node, choices: Mapping[str, str]) -> str | None:
    """``sdegen-<name>`` with what a configuration says beyond the command's defaults.

    choices: the command's groups and what each is by default.  None where a group holds what no
    choice of it makes, as a network of one's own: there is no command without its file.
    """
    said = []
    for group, usual in choices.items():
        found = overrides(group, config.get(group), usual)
        if found is None:
            return None
        said += found
    plain = defaults(name)
    for key, value in config.items():
        if key in plain and key not in LEFT_OUT and (key == "run" or value != plain[key]):
            said.append(f"{key}={written(value)}")
    return shlex.join([f"sdegen-{name}", *sorted(said, key=lambda each: each[:4] != "run=")])


LEFT_OUT = ("name", "device", "devices", "quality", "formats", "objective")
"""Settings that no number depends on."""


def overrides(group: str, node: Any, usual: str) -> list[str] | None:
    """Of a group: the choice that a node is nearest to, and what is set of it; [] for its default,
    None where no choice is alike."""
    node, known = node or {}, nodes(group)
    alike = [n for n, each in known.items() if each.get("_target_") == node.get("_target_")]
    if not node:
        alike = [n for n in (usual, *known) if not known.get(n, {})]
    if not alike:
        return None
    name = min(alike, key=lambda n: (len(list(differing(known.get(n, {}), node))), n != usual))
    chosen = [] if name == usual else [f"{group}={name}"]
    return chosen + [
        f"{group}.{key}={value}" for key, value in differing(known.get(name, {}), node)
    ]


def differing(choice: Node, node: Node) -> Iterator[tuple[str, str]]:
    """Where a node is not as the choice has it, at any depth."""
    for key, value in node.items():
        there = choice.get(key)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            yield from ((f"{key}.{inner}", told) for inner, told in differing(there, value))
        elif isinstance(there, str) and there.startswith("${"):
            continue  # it follows the setting that it names
        elif key not in choice or there != value:
            yield key, written(value)


@lru_cache
def nodes(group: str) -> dict[str, Any]:
    """The choices of a group by name."""
    if group == "solver":
        from sdegen.solvers.registry import PARTIAL, entries

        return {name: entry.config() for name, entry in entries().items()} | PARTIAL
    names = [each.name for each in (files("sdegen.conf") / group).iterdir()]
    stems = sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))
    return {stem: settings(f"{group}/{stem}.yaml") for stem in stems}


@lru_cache
def defaults(name: str) -> dict[str, Any]:
    """The plain settings of a command."""
    found = settings(f"{name}.yaml")
    return {key: value for key, value in found.items() if key not in ("defaults", "hydra")}


def settings(path: str) -> dict[str, Any]:
    """A file of conf, as it is written."""
    from omegaconf import OmegaConf

    read = OmegaConf.create((files("sdegen.conf") / path).read_text(encoding="utf-8"))
    plain: Any = OmegaConf.to_container(read)
    return plain


PLAIN = r"[\w./+-]+"
"""Letters that need no quotes."""


def parsed(text: str) -> Any:
    """What Hydra reads there, of any kind."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(f"key={text}").value()


def written(value: Any) -> str:
    """A value as Hydra's command line has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{written(each)}" for key, each in value.items()) + "}"
    if isinstance(value, str) and not (re.fullmatch(PLAIN, value) and parsed(value) == value):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)
