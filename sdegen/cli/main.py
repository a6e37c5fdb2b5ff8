"""What the commands share: Hydra's entry, and errors as one sentence."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any


def hydra_main(task: Callable[[dict[str, Any]], None], config_name: str) -> None:
    """Run a task on its resolved configuration, under Hydra.

    What a user got wrong ends in one sentence, not in a traceback.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    store_groups()
    # Hydra then raises instead of printing, and the sentence is ours to write.
    os.environ["HYDRA_FULL_ERROR"] = "1"

    @functools.wraps(task)
    def spoken(cfg: Any) -> None:
        try:
            config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
            task(config)
        except (OmegaConfBaseException, ValueError, OSError) as error:
            sys.exit(f"sdegen: {explain(error)}")

    entry = hydra.main(
        version_base="1.3", config_path="pkg://sdegen.conf", config_name=config_name
    )
    try:
        entry(spoken)()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        sys.exit(f"sdegen: {explain(error)}")


def store_groups() -> None:
    """What Hydra's groups hold beside the files of conf: the schema and the solvers."""
    from hydra.core.config_store import ConfigStore

    from sdegen.solvers.registry import RENAMED, entries
    from sdegen.training.settings import TrainSettings

    store = ConfigStore.instance()
    store.store(group="train", name="schema", node=TrainSettings)
    for name, entry in entries().items():
        store.store(group="solver", name=name, node=entry.config())
    for old, new in RENAMED.items():
        store.store(group="solver", name=old, node=entries()[new].config())
    tuned = {"_target_": "sdegen.solvers.tuned.load", "path": "???"}
    store.store(group="solver", name="tuned", node=tuned)


def explain(error: BaseException) -> str:
    """An error as a sentence; a misspelt key with the keys that exist."""
    from hydra.errors import HydraException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError

    from sdegen.solvers.correctors import ALONE
    from sdegen.solvers.registry import CORRECTORS

    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.parent_node is not None:
        keys = sorted(str(key) for key in cause.parent_node if key != "hydra")
        where = cause.full_key or cause.key
        return f"there is no setting {where}: it must be one of {', '.join(keys)}."
    text = str(error)
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
        return f"Could not find '{group}/{name}': {group} is one of {', '.join(known.split())}."
    if isinstance(error, HydraException) and cause is not None and str(cause) not in text:
        text = f"{text} ({str(cause).splitlines()[0]})"
    return " ".join(text.split())
