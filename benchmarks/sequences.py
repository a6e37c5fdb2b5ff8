"""Programs of docs/sequences.md with another seed: a part each of benchmarks/sequences.json.

    OMP_NUM_THREADS=1 python benchmarks/sequences.py timegrad 1 FOLDER
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from sdegen.files import read_json, write_json

OUT = Path(__file__).with_suffix(".json")


def main(name: str, seed: str, folder: str) -> None:
    """Run examples/NAME.py in a folder, and keep its configuration and figures."""
    sys.path.insert(0, str(OUT.parents[1] / "examples"))
    made = importlib.import_module(name).main(f"{folder}/{name}-{seed}", seed=int(seed))
    known = read_json(OUT) if OUT.is_file() else {}
    write_json(OUT, {**known, f"{name}, seed {seed}": made})


if __name__ == "__main__":
    main(*sys.argv[1:])
