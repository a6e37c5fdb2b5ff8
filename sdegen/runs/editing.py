"""Editing by renoising, as a task of ``sdegen-sample``."""

from __future__ import annotations

from dataclasses import dataclass

from sdegen.checks import number


@dataclass(frozen=True)
class Edit:
    """Images noised to t = start, and drawn again from there.  Meng et al. (2022), SDEdit."""

    start: float

    def __post_init__(self) -> None:
        if self.start is None:
            raise ValueError(
                "task=edit noises images to a time, and draws them again from there: say which, "
                "start=0.4 (a small one keeps more of them)."
            )
        number("start", self.start)
