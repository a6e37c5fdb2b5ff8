"""unCLIP: pictures from embeddings, and embeddings from texts.  Ramesh et al. (2022).

    sdegen-train experiment=text/captioned_digits
    python examples/unclip.py outputs/unclip outputs/text/captioned_digits [--steps 1500]

Into the first folder, of the second, a run: takes its contrastive pair, which it fits the first
time, and trains the two models of unCLIP, a prior p(z_i | z_t) of the embeddings of images given
that of the text, and a decoder p(x | z_i). Then it draws pictures of texts, variations of
pictures, and what lies between two of them.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.data import captioned_digits
from sdegen.files import write_json
from sdegen.guidance import CFG, CLIP, as_token, on_sphere
from sdegen.likelihood import slerp
from sdegen.losses import EDMWeighting, LogNormalTime, dropped, low_discrepancy
from sdegen.metrics import DigitJudge, words_right
from sdegen.networks import Transformer, UNet
from sdegen.plots import save_samples
from sdegen.runs.folder import load_run
from sdegen.runs.judging import clip_of
from sdegen.sampling import best_of
from sdegen.text import NO_TEXT, Encoder


def learned(
    model: sg.ScoreModel, x: Tensor, told: Tensor, mean: float, steps: int, batch: int
) -> sg.ScoreModel:
    """A model of x (n, *) that is told embeddings (n, d), and now and then none.

    mean: of ln(sigma / alpha), where it is trained most: what a text decides of 32 coordinates,
    and an embedding of a digit of eight pixels, is seen at more noise than what photographs are.
    """
    weighting, times = EDMWeighting(float(x.std())), LogNormalTime(mean)
    dsm = partial(sg.dsm_loss, weighting=weighting, times=times, draw=low_discrepancy)
    loss = partial(dropped, loss=dsm, p=0.1, without=NO_TEXT)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
    for _ in range(steps):
        at = torch.randint(len(x), (batch,))
        optimizer.zero_grad()
        loss(model.given(**as_token(told[at])), x[at]).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


class UnCLIP:
    """A pair, a prior of series of one place with an embedding's coordinates as channels, and a
    decoder."""

    def __init__(self, clip: CLIP, text: Encoder, steps: int) -> None:
        self.clip, self.text, data = clip, text, captioned_digits("train")
        with torch.no_grad():
            z = torch.cat([clip.embed(x) for x in data.x.split(500)])
        sde, d, s = clip.sde, z.shape[1], float(data.x.std())
        tower = Transformer(d, 128, 3, 4, patch=1, dims=1, token_width=d, length=1)
        prior = sg.ScoreModel(tower, sde, "x0", time="c_noise", sigma_data=1.0)
        z_t = self.of_texts(data.captions)
        self.prior = learned(prior, z[..., None], z_t, 0.3, steps, 64)
        unet = UNet(3, 24, mults=(1, 2, 2), attention=(1, 2), token_width=d, length=1)
        decoder = sg.ScoreModel(unet, sde, "edm", sigma_data=s)
        self.decoder = learned(decoder, data.x, z, 0.2, steps, 32)

    @torch.no_grad()
    def of_texts(self, captions: list[str]) -> Tensor:
        """z_t (n, d)."""
        return self.clip.embed_text(**self.text(captions))

    def drawn(self, z_t: Tensor, k: int = 2) -> Tensor:
        """z_i (n, d) of texts: of k draws that of the largest <z_i, z_t>."""
        told = self.prior.given(**as_token(z_t))
        shape = (*z_t.shape, 1)

        def draw(seed: int) -> Tensor:
            return on_sphere(sg.sample(told, shape, nfe=10, seed=seed)[..., 0])

        return best_of(draw, k, lambda z: (z * z_t).sum(1))

    def pictures(self, z: Tensor, seed: int = 0) -> Tensor:
        """x (n, 3, 16, 16) of embeddings."""
        guided = CFG(self.decoder.given(**as_token(z)), 2.0, without=NO_TEXT)
        return sg.sample(guided, (len(z), 3, 16, 16), nfe=40, seed=seed)

    @torch.no_grad()
    def taken_apart(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What a picture is: its embedding z_i, and x_T, all that this does not say."""
        z = self.clip.embed(x)
        return z, sg.encode(self.decoder.given(**as_token(z)), x, steps=20).to(x)

    def variations(self, z: Tensor, x_T: Tensor, eta: float = 0.0) -> Tensor:
        """Pictures of embeddings that begin at x_T: with eta = 0 what was taken apart again."""
        told = self.decoder.given(**as_token(z))
        return sg.sample(told, x_T, solver=sg.DDIM(eta), steps=40, seed=1)


def main(folder: str, run: str, steps: int = 1500, n: int = 160) -> dict[str, float]:
    """Train, draw pictures into the folder and measure: shares of what is right."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    found = load_run(Path(run), [], "cpu")
    assert found.text is not None
    un, judge = UnCLIP(clip_of(found, steps=2 * steps), found.text, steps), DigitJudge()
    torch.manual_seed(0)
    test, novel = captioned_digits("test"), captioned_digits("novel")
    every = sorted({*test.captions, *novel.captions})
    figures, z_every = dict[str, float](), un.of_texts(every)

    def nearest(z: Tensor, captions: list[str], z_t: Tensor) -> list[str]:
        return [captions[k] for k in (z @ z_t.T).argmax(1).tolist()]

    for name, data in (("test", test), ("novel", novel)):
        with torch.no_grad():
            said = nearest(un.clip.embed(data.x), every, z_every)
        figures[f"retrieved, {name}"] = words_right(said, data.captions)["all"]
    some = [every[k] for k in torch.randperm(len(every))[:n].tolist()]
    z_t = un.of_texts(some)
    z_i = un.drawn(z_t)
    figures["embeddings of texts"] = words_right(nearest(z_i, some, z_t), some)["all"]
    picked = torch.randperm(len(test))[:n]
    originals, asked = test.x[picked], [test.captions[k] for k in picked.tolist()]
    z, x_T = un.taken_apart(originals)
    x, others = un.pictures(z_i), un.variations(z, x_T, eta=0.25)
    for name, made, of in (("pictures of texts", x, some), ("variations", others, asked)):
        for part, share in words_right(judge(made), of).items():
            figures[f"{name}, {part}"] = share
    red, blue = un.of_texts(["large red one top left", "large blue one top left"])
    way = on_sphere(blue - red)[None]
    one, two, ws = (z[:1], x_T[:1]), (z[1:2], x_T[1:2]), torch.linspace(0, 1, 8).tolist()
    between = [un.variations(*(slerp(a, b, w) for a, b in zip(one, two, strict=True))) for w in ws]
    bluer = [un.variations(slerp(z[:1], way, w / 2), x_T[:1]) for w in ws]
    rows = torch.cat([x[:8], originals[:8], others[:8], *between, *bluer])
    title = "Of texts; pictures, and variations; between two; from red to blue"
    save_samples(rows, f"{folder}/picture.png", title, columns=8)
    for name, share in figures.items():
        print(f"{name:28s} {share:.3f}")
    told = [{"what": name, "value": share} for name, share in figures.items()]
    config = {"run": run, "steps": steps, "n": n}
    write_json(Path(folder) / "result.json", {"config": config, "figures": told})
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("run")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--quick", action="store_true", help="in seconds")
    told = parser.parse_args()
    quick = {"steps": 2, "n": 8} if told.quick else {"steps": told.steps}
    main(told.folder, told.run, **quick)
