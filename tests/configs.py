"""Configurations of the commands, composed as the commands compose them."""

from __future__ import annotations

from typing import Any

from sdegen.cli.bench import store_bench
from sdegen.cli.main import store_groups

GIVEN = {
    "sample": ["run=x", "name=x"],
    "tune": ["run=x", "nfe=5"],
    "evaluate": ["run=x"],
    "report": ["run=x"],
    "card": ["run=x", "license=mit"],
    "train": ["name=x"],
}


def composed(command: str, *overrides: str) -> dict[str, Any]:
    """A command's configuration, as it gets it."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    store_groups()
    store_bench()
    with initialize_config_module("sdegen.conf", version_base="1.3"):
        cfg = compose(command, [*GIVEN.get(command, []), *overrides])
    plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    return plain
