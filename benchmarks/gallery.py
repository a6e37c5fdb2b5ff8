"""The gallery of docs/gallery: systems of the field by their commands, records of them, pages.

    python benchmarks/gallery.py run [NAME ...]     # in gallery/, and what they need; or all
    python benchmarks/gallery.py pages              # docs/gallery/*.md from the records

A record says what was run (commands and the configuration that they made), what came out (figures
and a picture), how long it took (seconds of the processor), on what, and when. Pages are made of
records and of systems.py alone: nothing in docs/gallery is written by hand.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from programs import PROGRAMS
from systems import SYSTEMS, System
from worded import WORDED

from sdegen.files import read_json, write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "gallery"
FAMILIES = {
    "processes": "Processes and networks",
    "solvers": "Solvers",
    "likelihood": "Likelihood",
    "variances": "Variances",
    "guidance": "Conditions",
    "training": "Training for fewer calls",
    "latents": "Networks, latents and words",
    "adapting": "Fine-tuning and control",
    "sequences": "Video, series, plans, music",
    "volumes": "Three dimensions",
    "theory": "Compression and theory",
}
EVERY = [*SYSTEMS, *WORDED, *PROGRAMS]
KNOWN = {each.name: each for each in EVERY}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["run", "pages"])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of systems; all by default")
    parser.add_argument("--folder", type=Path, default=Path("gallery"), help="where they are run")
    parser.add_argument("--records", type=Path, default=PAGES, help="where records are kept")
    parser.add_argument(
        "--tiny", nargs="*", default=[], help="settings for sdegen-train, for a test"
    )
    given = parser.parse_args()
    if strangers := set(given.names) - KNOWN.keys():
        parser.error(f"there is no system {', '.join(sorted(strangers))}: {', '.join(KNOWN)}")
    if given.what == "pages":
        for path, text in pages(given.records).items():
            write_text(path, text)
            print(path)
        return
    for name in in_order(given.names or list(KNOWN)):
        if name in given.names or not done(name, given.records, given.folder):
            record(KNOWN[name], given.folder, given.records, given.tiny)


def in_order(names: Sequence[str]) -> list[str]:
    """Systems with those that they need, which come first."""
    found: list[str] = []
    for name in names:
        for each in (*in_order(KNOWN[name].needs), name):
            if each not in found:
                found.append(each)
    return found


def done(name: str, records: Path, folder: Path) -> bool:
    """Whether a system was recorded, and what its commands left is still there."""
    there = all(any(folder.glob(each)) for each in KNOWN[name].results)
    return there and (records / f"{name}.json").is_file()


def record(system: System, folder: Path, records: Path, tiny: Sequence[str]) -> None:
    """Run a system, and write its record and its picture.

    Raises ValueError where a command fails or leaves no result: nothing is recorded then.
    """
    folder.mkdir(parents=True, exist_ok=True), records.mkdir(parents=True, exist_ok=True)
    commands = []
    for line in system.commands:
        print(f"{system.name}: {line}", flush=True)
        commands.append({"line": line, "seconds": run(line, folder, tiny)})
    results = [left(folder, each) for each in system.results]
    picture = f"{system.name}.png"
    shutil.copyfile(left(folder, system.shown), records / picture)
    about = {
        "name": system.name,
        "commands": commands,
        "rows": rows_of(results),
        "config": [config_of(path) for path in results],
        "picture": picture,
        "date": date.today().isoformat(),
        "hardware": f"{os.cpu_count()}-core {platform.machine()} CPU, one thread",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    write_json(records / f"{system.name}.json", about)


def run(line: str, folder: Path, tiny: Sequence[str]) -> float:
    """A command in a folder: its seconds of the processor."""
    command, *arguments = shlex.split(line)
    if command == "python":
        words = [sys.executable, str(ROOT / arguments[0]), *arguments[1:]]
        return measured([*words, *(["--quick"] if tiny else ())], line, folder)
    script = shutil.which(command, path=str(Path(sys.executable).parent)) or command
    more = {"sdegen-train": tiny, "sdegen-sample": ["n=8"], "sdegen-evaluate": ["n=4"]}
    arguments += [*(more[command] if tiny else ()), "device=cpu"]
    return measured([script, *arguments], line, folder)


def measured(command: Sequence[str], line: str, folder: Path) -> float:
    """A command in a folder: its seconds of the processor. line: as it is printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=folder, env=one, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        raise ValueError(f"{line} failed with {ended.returncode}.")
    return round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)


def left(folder: Path, pattern: str) -> Path:
    """The one file of a pattern; ValueError where there is none, or several."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ValueError(f"Of {folder / pattern} there are {len(found)} files, not one.")
    return found[0]


def config_of(path: Path) -> Any:
    """That of a result: its own, or its run's."""
    found = read_json(path)
    own = isinstance(found, dict) and "config" in found
    return found["config"] if own else read_json(path.parent / "config.json")


def rows_of(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The figures of results as one table, each row once; bits by how they were measured."""
    rows: list[dict[str, Any]] = []
    for path in paths:
        found = read_json(path)
        if isinstance(found, dict) and "figures" in found:
            rows += found["figures"]
            continue
        if isinstance(found, dict) and "mean" in found:
            told = {name: row for name, row in found["mean"].items()}
            rows += [
                {"measured": name, "unit": found["unit"], **row} for name, row in told.items()
            ]
            continue
        if isinstance(found, dict) and "rows" not in found:  # of an autoencoder
            named = [(part, key) for part in found for key in found[part]]
            rows += [
                {"what": f"{key}, {part} data", "value": found[part][key]} for part, key in named
            ]
            continue
        for row in found["rows"] if isinstance(found, dict) else found:
            if row not in rows:
                rows.append(row)
    return rows


# ------------------------------------------------------------------------------------------ pages


def pages(records: Path) -> dict[Path, str]:
    """All pages of the records that there are, by their places."""
    known = {name: records / f"{name}.json" for name in KNOWN}
    told = {name: read_json(path) for name, path in known.items() if path.is_file()}
    found = {records / f"{name}.md": "\n".join(page(KNOWN[name], told[name])) for name in told}
    return {records / "index.md": "\n".join(index(told)), **found}


def index(told: dict[str, Any]) -> Iterator[str]:
    """The page of all."""
    yield from ("# Gallery", "")
    yield (
        "Systems of the field, each by the commands on its page, most of them on 8 x 8 digits, "
        "with a figure and what real data or the exact answer have. Made by "
        "`python benchmarks/gallery.py`; [the reading list](../reading.md) has all systems."
    )
    for family, title in FAMILIES.items():
        names = [n for n in told if KNOWN[n].family == family]
        if not names:
            continue
        yield from ("", f"## {title}", "")
        yield from ("| system | paper | |", "|---|---|---|")
        for name in names:
            papers = "; ".join(KNOWN[name].papers)
            best = summary(told[name]["rows"])
            yield f"| [{KNOWN[name].title}]({name}.md) | {papers} | {best} |"
    yield from ("", "```{toctree}", ":hidden:", "", *told, "```", "")


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """A figure in words: the first that a demand was made of, or the last row's distance."""
    if "what" in rows[0]:
        row = next((row for row in rows if row.get("wished")), rows[0])
        beside = "" if row.get("beside") is None else f", {shown(row['beside'])} {row['of']}"
        return f"{row['what']}: {shown(row['value'])}{beside}"
    if "measured" in rows[0]:
        return f"{rows[0]['mean']:.3f} {rows[0]['unit']}"
    floor = next((row["frechet"] for row in rows if row["nfe"] is None), None)
    measured = [row for row in rows if row["nfe"] is not None and row.get("frechet")]
    if not measured:
        return f"{rows[-1]['nfe']} calls"
    last = measured[-1]
    real = "" if floor is None else f", {shown(floor)} real data"
    return f"Frechet {shown(last['frechet'])} at {last['nfe']} calls{real}"


def page(system: System, told: dict[str, Any]) -> Iterator[str]:
    """A system's page."""
    yield from (f"# {system.title}", "")
    yield from (f"{'; '.join(system.papers)} ([references](../references.md)).", "")
    yield from (f"    {system.equation}", "", system.says, "")
    yield from (f"![{system.title}]({told['picture']})", "")
    if system.needs:
        before = ", ".join(f"[{KNOWN[name].title}]({name}.md)" for name in system.needs)
        yield from (f"After the commands of {before}:", "")
    yield from ("```bash", *(each["line"] for each in told["commands"]), "```", "")
    yield from table(told["rows"])
    seconds = ", ".join(f"{each['seconds']:.0f}" for each in told["commands"])
    homes = ", ".join(f"`{home}`" for home in system.homes)
    yield from ("", f"Its lines: {homes}.", "")
    made = told["versions"]
    yield (
        f"Seconds of the processor: {seconds}; {told['hardware']}, Python {made['python']}, "
        f"torch {made['torch']}, {told['date']}."
    )
    yield ""


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Figures, as a run's own table or a program has them."""
    if "what" in rows[0]:
        yield from ("| | | beside | wished |", "|---|---|---|---|")
        for row in rows:
            known = row.get("beside") is not None
            beside = f"{shown(row['beside'])} {row['of']}" if known else ""
            cells = row["what"], shown(row["value"]), beside, row.get("wished", "")
            yield f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"
        return
    if "measured" in rows[0]:
        yield from ("| | mean | standard error |", "|---|---|---|")
        for row in rows:
            name = NAMED[row["measured"]].format(**row)
            yield f"| {name} | {shown(row['mean'])} | {shown(row['error'])} |"
        return
    left_out = ("solver", "budget", "nfe", "seconds", "failed")
    keys = ["nfe", *dict.fromkeys(key for row in rows for key in row if key not in left_out)]
    yield f"| | {' | '.join(HEADS.get(key, key) for key in keys)} |"
    yield "|---" * (1 + len(keys)) + "|"
    for row in rows:
        name = re.sub(r"-(nfe|steps|seed)\d.*", "", row["solver"])
        yield f"| {name} | {' | '.join(shown(row.get(key)) for key in keys)} |"


def shown(value: Any) -> str:
    """A figure in four digits, nothing where there is none."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


BAR = "\\|"
"""A bar inside a table's cell."""
HEADS = {"nfe": "calls", "frechet": "Frechet", "sliced": "sliced W2"}
NAMED = {
    "flow": "{unit}, probability flow",
    "elbo": "{unit}, continuous bound",
    "ddpm": "{unit}, discrete bound",
    "nfe": "network calls",
}

if __name__ == "__main__":
    main()
