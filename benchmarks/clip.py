"""CLIP guidance on captioned digits: how often a run's pair finds captions, and what it draws.

python benchmarks/clip.py --run outputs/text/captioned_digits
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import captioned_digits
from sdegen.metrics import DigitJudge, words_right
from sdegen.runs.folder import load_run
from sdegen.runs.judging import clip_of, described
from sdegen.runs.telling import Prompts


def main(
    run: str,
    out: str = "benchmarks/clip.json",
    n: int = 128,
    nfe: int = 20,
    scales: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0),
    rhos: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0),
    **fit: Any,
) -> dict[str, Any]:
    """Shares of right words: of the caption that is nearest to a held-out picture among all 320,
    clean and noised to sigma / alpha = rho, and of samples of the model of no text, guided to
    held-out pictures' captions. ``fit``: settings of the pair, other than the command's."""
    found = load_run(Path(run), [], "cpu")
    assert found.text is not None
    clip, judge, rows = clip_of(found, **fit), DigitJudge(found.shape[-1]), []
    sets = {name: captioned_digits(name, found.shape[-1]) for name in ("test", "novel")}
    every = sorted({caption for data in sets.values() for caption in data.captions})
    with torch.no_grad():
        z_every = clip.embed_text(**found.text(every))
    for split, data in sets.items():
        picks = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:2000]
        said = [data.captions[i] for i in picks.tolist()]
        for rho in rhos:
            z = embedded(clip, data.x[picks], rho)
            nearest = [every[k] for k in (z @ z_every.T).argmax(1).tolist()]
            rows.append({"split": split, "rho": rho, **words_right(nearest, said)})
            print(rows[-1], flush=True)
        given = Prompts.of(found.text, said[:n]).given(found.model, n)
        for scale in scales:
            guided = described(found, scale=scale, **fit)(given)
            x = sg.sample(guided, (n, *found.shape), solver=sg.DPMSolverPP(2), nfe=nfe, seed=0)
            shares = words_right(judge(x), said[:n])
            rows.append(
                {"split": split, "scale": scale, **shares, "largest": float(x.abs().max())}
            )
            print(rows[-1], flush=True)
    about = {
        "command": f"python benchmarks/clip.py --run {run}",
        "n": n,
        "nfe": nfe,
        "step": found.step,
        "hardware": f"{platform.machine()}, CPU",
        "torch": torch.__version__,
        "rows": rows,
    }
    Path(out).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return about


@torch.no_grad()
def embedded(clip: Any, x0: Tensor, rho: float) -> Tensor:
    """Features of pictures noised to rho; at 0 their embeddings, as unCLIP has them."""
    if not rho:
        return clip.embed(x0)  # type: ignore[no-any-return]
    level = clip.sde(clip.sde.time(-torch.tensor(rho, dtype=torch.float64).log()))
    z = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    return clip.image(clip.sde.mix(x0, level, z), level)  # type: ignore[no-any-return]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", default="benchmarks/clip.json")
    parser.add_argument("--n", type=int, default=128)
    parser.add_argument("--nfe", type=int, default=20)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.0, 1.0, 2.0, 4.0, 8.0])
    said = parser.parse_args()
    main(said.run, said.out, said.n, said.nfe, tuple(said.scales))
