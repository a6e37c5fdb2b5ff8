"""What networks learn in the same number of steps: the held-out loss of finished runs.

    sdegen-train experiment=digits train.validate_every=300
    sdegen-train experiment=networks/dit train.validate_every=300
    python benchmarks/network_loss.py outputs/digits outputs/networks/dit

Writes the rows of these folders into benchmarks/network_loss.json and prints it. The loss is EDM's
on held-out data, of the averaged weights and with the same noise for every network; seconds are
the wall clock's, on a machine that may have had other work.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

import sdegen as sg


def row(folder: Path) -> dict[str, Any]:
    """What a run's files say of its network, its steps and its loss."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    seen = {r["step"]: round(r["held_out"], 4) for r in records if r["held_out"] is not None}
    if not seen:
        raise SystemExit(f"{folder} has no held-out loss: train.validate_every=300 takes it.")
    model = sg.load(folder, weights="averaged")
    return {
        "network": config["net"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch": config["train"]["batch_size"],
        "lr": config["train"]["optimizer"]["lr"],
        "held out": seen,
        "seconds": round(sum(r["seconds"] for r in records), 1),
    }


def main() -> None:
    """Read, write and print."""
    if len(sys.argv) < 2:
        raise SystemExit(str(__doc__))
    path = Path(__file__).with_suffix(".json")
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": {}}
    record |= {
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "processor": "2-core x86-64 server (virtual machine), one thread",
    }
    for folder in map(Path, sys.argv[1:]):
        record["runs"][folder.name] = row(folder)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
