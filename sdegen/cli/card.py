"""``sdegen-card``: a finished run as a folder to pass on, with a model card."""

from __future__ import annotations

from typing import Any

from sdegen.cli.main import hydra_main


def main() -> None:
    """The command."""
    hydra_main(run, "card")


def run(config: dict[str, Any]) -> None:
    """Write the folder, and say where it is."""
    from sdegen.runs.card import CardSettings, make_card
    from sdegen.runs.settings import read

    out = make_card(read(CardSettings, config))
    print(f"{out}: the weights, and README.md, which says what they are")
