"""A finished run as a folder to pass on: its weights, and a model card as hubs read it."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import sdegen
from sdegen.checks import optional, text, texts
from sdegen.files import read_json, read_tensors, write_json, write_tensors, write_text
from sdegen.runs.build import ALLOWED, targets
from sdegen.runs.folder import WEIGHTS, Run, content_of, load_run
from sdegen.runs.kept import without_place

DIGITS = (
    "scikit-learn's copy of UCI's Optical Recognition of Handwritten Digits, which names the "
    "source and no licence"
)
OPENMOJI = "CC BY-SA 4.0 (OpenMoji), or what the font has that was drawn with"
BUNDLED = {
    "digits": DIGITS,
    "bold_digits": DIGITS,
    "captioned_digits": DIGITS,
    "photo_patches": "CC BY 2.0: china.jpg and flower.jpg of scikit-learn, by danielbuechele and "
    "vultilion",
    "emoji": OPENMOJI,
    "toy": "made by a formula",
}
"""What is known of the data that come with a package: docs/licences.md."""


PIPELINES = {
    "samples": "unconditional-image-generation",
    "student": "unconditional-image-generation",
    "restored": "image-to-image",
    "told": "text-to-image",
}
"""What hubs call what a model of images without classes does."""
COMMANDS = {
    "samples": "quality=false",
    "student": "quality=false",
    "restored": "task=... image=...",
    "told": "prompt='...' quality=false",
}
"""How the command samples it."""


@dataclass(frozen=True)
class CardSettings:
    """Of ``sdegen-card``.

    run: the folder of a finished run.  license: of its weights, as hubs write it: "mit",
    "cc-by-sa-4.0", "other".  data_license: of its data, None where it is known of what comes with
    a package.  about: None, or a sentence or more for the card.  out: a new or an empty folder.
    """

    run: str
    license: str
    data_license: str | None
    about: str | None
    out: str
    packages: list[str]

    def __post_init__(self) -> None:
        text("run", self.run), text("license", self.license), text("out", self.out)
        optional(text, "data_license", self.data_license)
        optional(text, "about", self.about)
        texts("packages", self.packages)
        if any(letter.isspace() for letter in self.license):
            raise ValueError(
                f"license must be an identifier as mit, cc-by-4.0 or other, but it is "
                f"{self.license!r}: say more of it in about=."
            )


def make_card(settings: CardSettings) -> Path:
    """Write the folder, whole or not at all; where it lies.

    Its weights are those of the finished run, and load, sample and teach as it does; what the card
    says is in their header too, under "card". Of an adapter they are what was learned alone: its
    base is named by its folder's name and the hash of its weights, and looked for next to it.

    Raises ValueError where the run is not finished or damaged, where nothing is known of its
    data's licence, and where the folder holds something already.
    """
    folder, out = Path(settings.run), Path(settings.out)
    run = load_run(folder, settings.packages, "cpu")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"{out} is not empty: name a new folder by out=, so that nothing is lost."
        )
    facts = facts_of(run, settings)
    tensors, header = read_tensors(folder / WEIGHTS)
    if base := facts["base"]:
        header["config"] = {**header["config"], "base": base}
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=out.resolve().parent, prefix=".part-"))
    try:
        write_tensors(part / WEIGHTS, tensors, {**header, "card": facts})
        pictures = sorted(folder.glob("samples-*.png"))
        for each in pictures:
            shutil.copyfile(each, part / each.name)
        if (folder / "table.json").is_file():
            write_json(part / "table.json", facts["figures"])
        name = out.name if settings.out != str(folder / "card") else folder.name
        write_text(part / "README.md", written(name, facts, [each.name for each in pictures]))
        if out.is_dir():
            out.rmdir()
        part.chmod(0o755)
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def kind_of(run: Run) -> str:
    """What is made, and of what: "samples", "restored", "told" of a text, "student"."""
    if run.config.get("coder"):
        raise ValueError(
            f"{run.folder} lives in the latents of {run.config['coder']['run']}, without which "
            "its samples are no data: pass both folders on as they are."
        )
    kinds = {
        "restored": run.config.get("task"),
        "told": run.text,
        "student": run.config.get("sampler"),
    }
    return next((name for name, found in kinds.items() if found), "samples")


def facts_of(run: Run, settings: CardSettings) -> dict[str, Any]:
    """What a card says of a run, for a header in JSON."""
    config = run.config
    train = without_place(config["data"].get("train", config["data"]))
    kind = str(train.get("_target_", "")).rpartition(".")[2]
    data_license = settings.data_license or BUNDLED.get(kind)
    if data_license is None:
        raise ValueError(
            f"The licence of the data ({kind}) is not known: say it by data_license=..., as "
            "data_license=cc-by-4.0 or data_license='none: my own pictures'."
        )
    table, weights, base = run.folder / "table.json", run.model.parameters(), None
    if config.get("adapter"):
        known = config["base"]
        base = {"run": Path(known["run"]).name, "content": known["content"]}
    strangers = {t.split(".")[0] for t in targets(config)} - {
        each.split(".")[0] for each in ALLOWED
    }
    return {
        "license": settings.license,
        "about": settings.about,
        "weights": content_of(run.folder),
        "parameters": sum(each.numel() for each in weights if each.requires_grad or not base),
        "base": base,
        "shape": run.shape,
        "step": run.step,
        "data": {"kind": kind, "settings": train, "counts": run.counts, "names": list(run.names),
                 "license": data_license},
        "conditional": bool(config["conditional"]),
        "kind": kind_of(run),
        "packages": sorted(strangers),
        "figures": read_json(table) if table.is_file() else [],
        "versions": {"sdegen": sdegen.__version__, "torch": torch.__version__,
                     "python": platform.python_version()},
    }  # fmt: skip


def written(name: str, facts: dict[str, Any], pictures: Sequence[str]) -> str:
    """The card as Markdown, with the head of YAML that hubs read."""
    from omegaconf import OmegaConf

    head = {"license": facts["license"], "library_name": "sdegen", "tags": ["diffusion", "score"]}
    if len(facts["shape"]) == 3 and not facts["conditional"]:
        head["pipeline_tag"] = PIPELINES[facts["kind"]]
    return "\n".join(
        ["---", OmegaConf.to_yaml(head) + "---", "", *lines(name, facts, pictures), ""]
    )


def lines(name: str, facts: dict[str, Any], pictures: Sequence[str]) -> Iterator[str]:
    """What a reader sees."""
    data, shape = facts["data"], tuple(facts["shape"])
    yield f"# {name}"
    yield ""
    if facts["about"]:
        yield from (facts["about"], "")
    of = f" of {len(data['counts'])} classes" if facts["conditional"] else ""
    yield (
        f"A score-based generative model of samples of the shape {shape}{of}, trained with "
        f"sdegen {facts['versions']['sdegen']} for "
        f"{facts['step']} steps: {facts['parameters']:,} weights, known by the hash "
        f"`{facts['weights']}`."
    )
    if base := facts.get("base"):
        yield (
            f"They were learned over a base that is not here: the run `{base['run']}`, whose "
            f"weights have the hash `{base['content']}`."
        )
    for best in sorted(facts["figures"], key=distance):
        if (picture := f"samples-{best['solver']}.png") in pictures:
            yield from ("", f"![Samples of {best['solver']}]({picture})")
            break
    yield from ("", "## Use", "", *use(facts), "")
    yield from ("## Data", "", f"`{data['kind']}`: {data['license']}.", "")
    names = data["names"] or [str(k) for k in range(len(data["counts"]))]
    if data["counts"]:
        yield from ("| class | items |", "|---|---|")
        yield from (f"| {n} | {k} |" for n, k in zip(names, data["counts"], strict=True))
        yield ""
    yield from ("## Licence", "", f"Of the weights: `{facts['license']}`.", "")
    if facts["figures"]:
        yield from ("## Figures", "", *table(facts["figures"]), "")


def use(facts: dict[str, Any]) -> Iterator[str]:
    """How it is sampled: by the command, and what needs nothing else by Python too."""
    if base := facts.get("base"):
        yield f"With its base's folder next to this one, as `path/to/this/../{base['run']}`:"
        yield ""
    yield f"`sdegen-sample run=path/to/this/folder {COMMANDS[facts['kind']]}`"
    if facts["packages"]:
        yield f"with `packages={facts['packages']}`, which its configuration names."
    if facts["kind"] != "samples":
        return
    told = f", packages={facts['packages']!r}" if facts["packages"] else ""
    given = ".given(y=0)  # a class for all, or a tensor of one for each" * facts["conditional"]
    yield from ("", "```python", "import sdegen as sg", "")
    yield f'model = sg.load("path/to/this/folder"{told}){given}'
    yield f"x = sg.sample(model, (16, {', '.join(map(str, facts['shape']))}), nfe=20, seed=0)"
    yield "```"


def distance(row: dict[str, Any]) -> float:
    """Of samples to data, infinite where it was not measured."""
    return float("inf") if row["sliced"] is None else row["sliced"]


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The figures of a run, as its table has them."""
    yield "Distances to held-out data, beside those of real data (the first row)."
    yield from (
        "",
        "| solver | network calls | Frechet, own features | sliced W2 |",
        "|---|---|---|---|",
    )
    for row in rows:
        calls = "" if row["nfe"] is None else row["nfe"]
        far, sliced = ("" if v is None else f"{v:.4g}" for v in (row["frechet"], row["sliced"]))
        yield f"| {row['solver']} | {calls} | {far} | {sliced} |"
