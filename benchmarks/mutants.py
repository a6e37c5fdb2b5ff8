"""What the tests are worth: which small changes of the mathematics do they see?

    python benchmarks/mutants.py --out benchmarks/mutants_before.json [--only REGEX] [--jobs N]
    python benchmarks/mutants.py --compare mutants_before.json mutants_after.json

Each line of mutants.json beside this file is one mutant: a function, by its qualified name, a text
in it, and the text that takes its place. The function is looked for anywhere in the package and
the text token by token, so that neither files nor layout matter. For each mutant the tree is
copied, changed, and tried with the tests that guard its room (``ROOMS``), until one fails: the
mutant is killed. It survives if all of them pass, and is "not found" if its text is not there just
once. The tests that killed are tried on the unchanged tree in the end, where they have to pass. An
interrupted run goes on where it was.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a pool of threads does not survive a fork

import argparse
import contextlib
import hashlib
import importlib
import json
import platform
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mutating import Child, Lost, Mutant, selected, template_of

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".json")
HEAVY = ("torch.func", "torchsde", "torchdiffeq", "scipy.integrate", "scipy.stats", "diffusers")
"""Imported once, and not for each mutant again: none of them imports the package."""


def orders(*names: str, sde: str = "vp") -> str:
    """The orders of these solvers under one SDE.  Where alpha^2 + sigma^2 = 1 some errors hide."""
    return rf"test_orders.py::test_(order_on_the|weak_order).*\[({'|'.join(names)})-{sde}\]"


ROOMS: dict[str, tuple[str, ...]] = {
    "exponential": (
        "test_exponential.py::by_hand|published|phi|quadrature|last_step",
        "test_equalities.py::schedule|point_mass|2m|ancestral|has_exactly",
        "test_exponential.py::polynomials.*-(1|3).0|data_scaled|straight",
        "test_parity.py::multistep_schedulers_of_diffusers",
        orders("dpmpp", "dpmpp-function", "multistep_f", "multistep_f-function", "multistep_wide"),
        orders("multistep_straight", "multistep_eps-function", "er_sde"),
        "test_invariance.py",
        "test_published_exponential.py",
        "test_published.py",
        "test_diffusers.py",
        "test_k_diffusion.py",
        "test_degenerate.py",
    ),
    "multistep": (
        "test_parity.py::multistep_schedulers.*(unipc_[13]|sa_2|sa_3_4)",
        r"test_exponential.py::published|last_step.*-vp\]|stepped",
        "test_parity.py::multistep_schedulers_of_diffusers",
        "test_equalities.py::2m|schedule|point_mass|by_hand",
        orders("unipc", "unipc_2", "unipc_2_bh1", "multistep_pc", "multistep_pc_4", "sa"),
        orders("multistep_wide_euler", "dpmpp_3", "dpmpp_3m"),
        "test_invariance.py",
        "test_published_exponential.py",
        "test_published.py",
        "test_diffusers.py",
        "test_k_diffusion.py",
        "test_degenerate.py",
    ),
    "singlestep": (
        "test_parity.py::dpmpp_sde|singlestep|dpm_fast",
        "test_equalities.py::schedule|point_mass|has_exactly",
        orders("singlestep", "singlestep_2", "singlestep_f", "dpm_3", "dpmpp_2s"),
        "test_exponential.py::any_node",
        "test_invariance.py",
        "test_published_exponential.py",
        "test_published.py",
        "test_diffusers.py",
        "test_k_diffusion.py",
        "test_degenerate.py",
        "test_diffusers_one_step.py",
    ),
    "deis": (
        "test_exponential.py::er_sde",
        "test_parity.py::pndm",
        "test_diffusers_one_step.py::pndm",
        "test_exponential.py::published",
        orders("deis_tab2", "deis_rhoab2", "ipndm", "plms", "er_sde", "er_sde_3"),
        "test_invariance.py",
        "test_published_exponential.py",
        "test_published.py",
        "test_diffusers.py",
        "test_k_diffusion.py",
        "test_degenerate.py",
    ),
    "classical": (
        "test_equalities.py::runge_kutta|algorithm_1|euler|schedule",
        orders("rk3", "rk4", "rk4_lam", "rk5", "heun", "edm_heun"),
        orders("rk4_lam", "edm_heun", sde="flow"),
        "test_parity.py::rho|edm|samplers_of_k",
        "test_published.py",
        "test_k_diffusion.py",
        "test_invariance.py",
        "test_diffusers_one_step.py",
    ),
    "stochastic": (
        "test_equalities.py::(?!.*(pure_noise|words|schedule|point_mass))",
        orders("ddim_half", "ddpm", "reverse_diffusion", "reverse_diffusion-0.8"),
        orders("euler_maruyama", "euler_maruyama-0.5", "sra1", "sra1-function", "stochastic_heun"),
        "test_laws.py",
        "test_parity.py::ddim_and_ddpm",
        "test_orders.py::strong|one_step",
        "test_published.py",
        "test_diffusers_one_step.py",
        "test_k_diffusion.py",
        "test_any_sde.py",
    ),
    "correctors": (
        "test_equalities.py::predictor|langevin|corrector|norms",
        "test_parity.py::ve_predictor",
        "test_equalities.py",
        "test_correctors.py",
        "test_published.py",
        "test_diffusers_one_step.py",
    ),
    "adaptive": (
        "test_adaptive.py::by_hand|papers|budget|stalls|nfe",
        "test_adaptive.py::sick|own_steps|conditions|clock|fewer",
        r"test_adaptive.py::follows.*-vp-|stay.*-vp\]",
        "test_adaptive.py",
    ),
    "analytic_dpm": ("test_analytic_dpm.py",),
    "sde": ("test_sde.py", "test_vdm.py", "test_linear.py"),
    "score": (
        "test_score.py",
        "test_laws.py",
        "test_outputs.py",
        "test_conditions.py",
        "test_any_sde.py",
    ),
    "reverse": (
        r"test_walks.py::(climbing_keeps|ddim_eta).*vp\]",
        "test_exponential.py::eta.*(er_sde|dpmpp)|last_step|stepped",
        "test_equalities.py::eta|maruyama|eq_12|algorithm|for_v",
        "test_laws.py",
        orders("euler_maruyama", "euler_maruyama-0.5", "dpmpp-0.5", "reverse_diffusion-0.8"),
        "test_climbs.py",
        "test_published.py",
        "test_any_sde.py",
    ),
    "walks": (
        "test_grids.py",
        "test_walks.py",
        "test_climbs.py",
        "test_churn.py",
        "test_restart.py",
        "test_spacings.py",
    ),
    "likelihood": (
        "test_likelihood.py::closed_form|song|gaussians|divergence|smoothed|slerp|numbers|without",
        "test_likelihood.py::hutch|estimators|backwards|mixtures",
        "test_likelihood.py::(?!.*(every_ode|adds_noise))",
        "test_density.py",
        "test_estimators.py",
        "test_encodings.py",
    ),
    "bounds": (
        "test_bounds.py::(?!.*(quadrature|tighten|probabilities|song|marginal|part_of))",
        "test_bounds.py",
    ),
    "noise": ("test_noise.py", "test_brownian.py::streams", "test_seeds.py"),
    "brownian": (
        "test_brownian.py::add_up|covariance|every_order",
        "test_brownian.py::(?!.*step_sizes)",
        "test_orders.py::strong",
        "test_brownian.py",
    ),
    "program": (
        "test_program.py::ones_own|not_linear|climbs|kernels|remembered|short|left_alone|changes",
        r"test_program.py::plain_loop.*-vp\]|networks_may",
        r"test_program.py::(?!.*plain_loop)",
        "test_captured.py",
        "test_tables.py",
        "test_contract.py::program",
    ),
}
"""Room -> its tests in the order in which they are tried, fast ones that kill much first.

Each is a pattern of files under tests/, wherever there, and perhaps "::" and a regular expression
that is looked for in the names of their tests. Files that are no longer there are passed over."""


def table() -> list[Mutant]:
    """Every mutant; ValueError if two have one name."""
    rooms: dict[str, list[list[str]]] = json.loads(TABLE.read_text())
    every = [
        Mutant(name, room, function, old, new)
        for room, rows in rooms.items()
        for name, function, old, new in rows
    ]
    if len({each.id for each in every}) < len(every):
        raise ValueError(f"Two mutants of {TABLE.name} have one name.")
    return every


def digest(root: Path) -> str:
    """Of the package and its tests: verdicts of other trees are not these."""
    total = hashlib.sha256()
    for part in ("sdegen", "tests"):
        for path in sorted((root / part).rglob("*.py")):
            total.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return total.hexdigest()[:16]


def header(root: Path) -> dict[str, Any]:
    """Versions, hardware, and the tree's digest."""
    torch = importlib.import_module("torch")
    return {
        "what": "killed: a test of the room fails; survived: all of them pass",
        "tree": digest(root),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pytest": pytest.__version__,
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
        "tests": {room: list(tests) for room, tests in ROOMS.items()},
    }


def write(out: Path, record: dict[str, Any]) -> None:
    """All of it or nothing."""
    part = out.with_name(f"{out.name}.part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(out)


def described(mutant: Mutant) -> dict[str, Any]:
    """What a record says of the change itself."""
    return {
        "room": mutant.room,
        "function": mutant.function,
        "from": mutant.old,
        "to": mutant.new,
    }


def stands(found: dict[str, Any], tests: list[str] | None) -> bool:
    """Whether a verdict found with these tests is one of today's too: its killer is among them."""
    now = list(ROOMS.get(found["room"], ()))
    if tests == now:
        return True
    file, _, name = found.get("killer", "").partition("::")
    parts = [entry.partition("::") for entry in now]
    return any(Path(file).match(each) and re.search(names, name) for each, _, names in parts)


def run(out: Path, only: str, jobs: int, limit: int) -> int:
    """Try the mutants that have no verdict yet; how many are not found."""
    every = table()
    record = header(ROOT) | {"passing": [], "mutants": {}}
    if out.exists():
        known = json.loads(out.read_text())
        if known["tree"] != record["tree"]:
            raise SystemExit(f"{out} is of another tree: give another --out.")
        known["mutants"] = {
            name: each
            for name, each in known["mutants"].items()
            if stands(each, known["tests"].get(each["room"]))
        }
        record |= {"passing": known["passing"], "mutants": known["mutants"]}
    done: dict[str, dict[str, Any]] = record["mutants"]
    wanted = [each for each in every if re.search(only, f"{each.room}: {each.id}")]
    todo = [each for each in wanted if described(each).items() - done.get(each.id, {}).items()]
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        template = template_of(ROOT, Path(folder))
        tried(todo, template, jobs, limit, out, record)
        killers = {each.get("killer", "") for each in done.values()} - set(record["passing"])
        if files := sorted(killer for killer in killers if "::" in killer):
            unchanged(template, files, 10 * limit)
            record["passing"] = sorted({*record["passing"], *files})
            write(out, record)
    verdicts = {each.id: done[each.id]["verdict"] for each in wanted}
    print(", ".join(f"{n} {verdict}" for verdict, n in Counter(verdicts.values()).most_common()))
    for name, verdict in verdicts.items():
        if verdict in ("survived", "not found"):
            print(f"  {verdict}: {told(name, done[name])}")
    return sum(verdict == "not found" for verdict in verdicts.values())


def tried(
    todo: list[Mutant],
    template: Path,
    jobs: int,
    limit: int,
    out: Path,
    record: dict[str, Any],
) -> None:
    """Give each of these mutants a verdict, in the record and in its file."""

    def note(mutant: Mutant, found: dict[str, Any]) -> None:
        record["mutants"][mutant.id] = described(mutant) | found
        print(told(mutant.id, record["mutants"][mutant.id]), flush=True)
        write(out, record)

    running: list[tuple[Mutant, Child]] = []
    try:
        while todo or running:
            while todo and len(running) < jobs:
                mutant = todo.pop(0)
                try:
                    entries = selected(ROOMS[mutant.room], template / "tests")
                    running.append((mutant, Child(template, entries, mutant, limit)))
                except Lost as error:
                    note(mutant, {"verdict": "not found", "why": str(error)})
            time.sleep(0.1)
            for mutant, child in list(running):
                found = child.verdict()
                if found is not None:
                    running.remove((mutant, child))
                    child.end()
                    note(mutant, found)
    finally:
        for _, child in running:
            child.end()


def unchanged(template: Path, tests: list[str], limit: int) -> None:
    """Tests that have killed, on the tree as it is, where all of them have to pass."""
    entries = []
    for test in tests:
        file, _, name = test.partition("::")
        entries.append((file, f"^{re.escape(name)}$"))
    child = Child(template, entries, None, limit)
    try:
        while (found := child.verdict()) is None:
            time.sleep(0.1)
        if found["verdict"] != "survived":
            said = (child.copy / "said.txt").read_text(errors="replace")
            raise SystemExit(f"A test fails without any mutant: {found}.\n{said[-3000:]}")
    finally:
        child.end()
    print(f"{found['tests']} tests that killed pass on the unchanged tree.", flush=True)


def told(name: str, found: dict[str, Any]) -> str:
    """A mutant and its verdict in a line."""
    change = f"{found['function']}: {found['from']} -> {found['to']}"
    return f"{name:28s} {found['verdict']:10s} {found.get('killer') or found.get('why') or change}"


def compare(before: Path, after: Path) -> int:
    """Print two runs side by side; how many mutants killed in the first are not in the second."""
    first, second = (json.loads(path.read_text())["mutants"] for path in (before, after))
    lost = 0
    for name in dict.fromkeys((*first, *second)):
        a, b = (each.get(name, {"verdict": "not tried"}) for each in (first, second))
        worse = a["verdict"].startswith("killed") and not b["verdict"].startswith("killed")
        lost += worse
        sides = (f"{each['verdict']:10s} {each.get('killer', '')}".strip() for each in (a, b))
        left, right = sides
        print(f"{'!' if worse else ' '} {name:28s} {left}\n{'':30s} {right}")
    print(f"{lost} killed before and not after.")
    return lost


def main() -> None:
    """Run, or compare."""
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--out", type=Path, help="the record, to begin or to go on with")
    parse.add_argument("--only", default="", help='of the mutants "room: name"')
    parse.add_argument("--jobs", type=int, default=1, help="mutants at once")
    parse.add_argument("--limit", type=int, default=600, help="seconds of a processor")
    parse.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"))
    args = parse.parse_args()
    if args.compare:
        raise SystemExit(1 if compare(*args.compare) else 0)
    if args.out is None:
        parse.error("--out or --compare")
    raise SystemExit(1 if run(args.out, args.only, args.jobs, args.limit) else 0)


if __name__ == "__main__":
    main()
