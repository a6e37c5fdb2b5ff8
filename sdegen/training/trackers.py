"""Where records go beside metrics.jsonl: loggers of Lightning Fabric, from any step on.

metrics.jsonl stays the truth: what a run that goes on tells once more is in no tracker twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sdegen.checks import warn

Records = Sequence[Mapping[str, Any]]
"""What metrics.jsonl holds."""

Tracker = Callable[[Path, int, Records], Any]
"""(run's folder, step that the run goes on from, all that was recorded) -> a
``lightning_fabric.loggers.Logger``, which gets pictures if it has ``show(title, path, step)``."""


def require(package: str, extra: str) -> None:
    """ValueError where a package is not installed."""
    if find_spec(package) is None:
        raise ValueError(
            f"logger={package} needs the package {package}: pip install 'sdegen[{extra}]', or "
            "take another logger."
        )


@dataclass(frozen=True)
class CSV:
    """metrics.jsonl as a table: tracking/metrics.csv, written anew when a run goes on."""

    def __call__(self, folder: Path, step: int, records: Records) -> Any:
        """The logger, which has been told all records up to the step."""
        from lightning_fabric.loggers.csv_logs import CSVLogger

        (folder / "tracking" / "metrics.csv").unlink(missing_ok=True)
        logger = CSVLogger(folder, name="", version="tracking")
        for record in records:
            if record["step"] <= step:
                logger.log_metrics({**numbers(record)}, record["step"])
        return logger


@dataclass(frozen=True)
class TensorBoard:
    """Event files in tensorboard/, for ``tensorboard --logdir``; of a run that goes on the points
    after its step are purged, which TensorBoard then leaves out."""

    def __post_init__(self) -> None:
        require("tensorboard", "track")

    def __call__(self, folder: Path, step: int, records: Records) -> Any:
        """The logger, from the step on."""
        from sdegen.training.loggers import Pictured

        return Pictured(folder, step + 1)


@dataclass(frozen=True)
class Wandb:
    """A run of Weights & Biases, whose files are in the run's folder.

    project: its name there.  mode: "offline", to be sent by ``wandb sync``, "online" or
    "disabled".  A run that goes on has the identifier that wandb.json keeps, and tells what was
    not told before: the last steps told are kept there too.
    """

    project: str = "sdegen"
    mode: str = "offline"

    def __post_init__(self) -> None:
        require("wandb", "wandb")
        if self.mode not in ("offline", "online", "disabled"):
            raise ValueError(
                f"logger.wandb.mode is offline, online or disabled, but it is {self.mode!r}."
            )

    def __call__(self, folder: Path, step: int, records: Records) -> Any:
        """The logger, begun, which has been told all records up to the step.

        Raises ValueError where wandb cannot begin.
        """
        from sdegen.training.loggers import WandbLogger

        logger = WandbLogger(folder / "wandb.json", self.project, self.mode)
        _ = logger.experiment  # now, so that what is wrong is said before there are steps
        for record in records:
            if record["step"] <= step:  # of one that was killed before it could tell
                logger.log_metrics(numbers(record), record["step"])
        return logger


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """What a tracker is told of a record."""
    return {k: v for k, v in record.items() if v is not None and k != "step"}


class Tracking:
    """The loggers of a run under way; nothing where there are none.

    A logger that fails on the way costs a warning and is told nothing more: training goes on.
    settings: of the run, which loggers are told at the start.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        folder: Path,
        step: int,
        records: Records,
        settings: Mapping[str, Any],
    ) -> None:
        self.loggers = [tracker(folder, step, records) for tracker in trackers]
        self.each("log_hyperparams", dict(settings))

    def tell(self, record: Mapping[str, Any]) -> None:
        """A record, to all of them, which have it on the disk then."""
        self.each("log_metrics", numbers(record), record["step"])
        self.each("save")

    def show(self, path: Path, step: int) -> None:
        """A picture, to those that take one."""
        self.each("show", "samples", path, step)

    def close(self, status: str) -> None:
        """At the run's end, whose status is "success", "aborted" or "failed"."""
        self.each("finalize", status)
        self.loggers = []

    def each(self, what: str, *given: Any) -> None:
        """Call a method of all loggers that have it, and drop those that fail."""
        for logger in list(self.loggers):
            try:
                getattr(logger, what, lambda *given: None)(*given)
            except Exception as error:  # of whatever a tracker is made of
                if what == "log_hyperparams" and isinstance(error, NotImplementedError):
                    continue  # Lightning's CSVLogger takes no settings
                self.loggers.remove(logger)
                reason = " ".join(str(error).split())[:300]
                name = type(logger).__name__
                warn(f"{name} is told nothing more, as its {what} failed: {reason}")
