"""Systems of networks, latents and words, for the gallery."""

from __future__ import annotations

from systems import System

FIVE = "large blue three top left", "small red seven bottom right", "large green eight bottom left"
FIVE += "small yellow zero top right", "large red five top right"
ASKED = "'prompt=[" + ",".join(f'"{each}"' for each in FIVE) + "]'"
SEVEN = "'prompt=\"small red seven top left\"'"
GUIDED = "nfe=40 guidance=cfg guidance.scale=3"

WORDED = [
    System(
        "dit",
        "latents",
        "A transformer as the network",
        ["Peebles & Xie (2023)"],
        "h <- h + g mix((1 + s) norm(h) + b),  g, s, b of time and class, g = 0 at first",
        "DiT in place of the U-Net, a token for each 2 x 2 pixels.",
        ["sdegen/networks/dit.py", "sdegen/networks/patches.py", "sdegen/networks/attention.py"],
        "dit",
        train="experiment=networks/dit",
        picture="samples-dpmpp.png",
    ),
    System(
        "autoencoder",
        "latents",
        "An autoencoder",
        ["Rombach et al. (2022)"],
        "loss = |x - D(z)|^2 / (2 s^2) + KL(q(z | x) || N(0, I)) weighted,  z = mean + std noise",
        "Colour patches of photographs as a quarter of the numbers, and back.",
        ["sdegen/networks/autoencoder.py", "sdegen/losses/coding.py"],
        "coder",
        train="experiment=latents/autoencoder",
        picture="reconstructions-test.png",
        result="result.json",
    ),
    System(
        "latent",
        "latents",
        "Latent diffusion",
        ["Rombach et al. (2022)"],
        "x = D(z / scale),  z a sample of a score model of scale E(x)",
        "The same, in the autoencoder's latents.",
        ["sdegen/latents/coding.py", "sdegen/runs/coders.py"],
        "latents",
        train="experiment=latents/diffusion coder.run=outputs/coder train.steps=1000",
        picture="samples-dpmpp.png",
        needs=["autoencoder"],
    ),
    System(
        "text",
        "latents",
        "Words",
        ["Nichol et al. (2022)", "Ho & Salimans (2022)"],
        "h <- h + W_o softmax(q k^T / sqrt(d)) v,  k and v of the caption's words",
        "Coloured digits by captions whose words are learned with the network.",
        ["sdegen/text/words.py", "sdegen/networks/tokens.py", "sdegen/networks/attention.py"],
        "captioned",
        train="experiment=text/captioned_digits",
        samples={
            "plain": "nfe=20 n=500",
            "cfg3": f"{GUIDED} n=500",
            "five": f"{ASKED} {GUIDED} n=8 quality=false",
        },
    ),
    System(
        "clip",
        "latents",
        "CLIP guidance",
        ["Nichol et al. (2022)", "Radford et al. (2021)"],
        "score + w grad exp(logit_scale) <f(x_t, t), g(text)>,  f and g of noisy pictures",
        "A contrastive pair of noisy pictures and captions is fitted to the run's data at first, "
        "and guides the model that is told no caption.",
        ["sdegen/guidance/clip.py", "sdegen/losses/judges.py"],
        "captioned",
        samples={"clip": f"{ASKED} n=8 nfe=40 guidance=clip guidance.scale=4 quality=false"},
        needs=["text"],
    ),
    System(
        "unclip",
        "latents",
        "unCLIP",
        ["Ramesh et al. (2022)"],
        "x ~ p(x | z_i),  z_i ~ p(z_i | z_t),  z the embeddings of a contrastive pair",
        "Rows: pictures of texts; held-out pictures, and a variation of each; between two; from "
        "red to blue.",
        ["examples/unclip.py", "sdegen/sampling/best.py", "sdegen/guidance/clip.py"],
        "unclip",
        script="unclip.py",
        told="outputs/captioned",
        needs=["text"],
    ),
    System(
        "prompt-to-prompt",
        "latents",
        "Prompt-to-Prompt",
        ["Hertz et al. (2022)"],
        "M*_t <- M_t W until rho = until,  M the maps of the first caption's tokens",
        "A small red seven, and the same one in blue.",
        ["sdegen/editing/prompt.py", "sdegen/editing/pairs.py"],
        "captioned",
        samples={
            "p2p": f"{SEVEN} task=p2p 'task.to=\"small blue seven top left\"' {GUIDED} n=10 "
            "quality=false"
        },
        picture="samples/p2p-*/images.png",
        needs=["text"],
    ),
    System(
        "diffedit",
        "latents",
        "DiffEdit",
        ["Couairon et al. (2023)"],
        "mask = |eps(x_t, to) - eps(x_t, from)| > threshold;  encode, decode within the mask",
        "Held-out pictures, coloured otherwise.",
        ["sdegen/editing/translation.py", "sdegen/editing/pairs.py", "sdegen/runs/editing.py"],
        "captioned",
        samples={
            "diffedit": f"{SEVEN} task=diffedit 'task.to=\"small blue seven top left\"' "
            f"task.threshold=0.25 {GUIDED} n=10 quality=false"
        },
        picture="samples/diffedit-*/images.png",
        needs=["text"],
    ),
    System(
        "glide-inpainting",
        "latents",
        "Filling in by a caption",
        ["Nichol et al. (2022)"],
        "eps(x_t, t, text, (known, mask)), trained on the unknown part alone",
        "A box of each held-out picture is unknown, and its caption says what is there.",
        ["sdegen/losses/restoration.py", "sdegen/runs/telling.py", "sdegen/networks/widening.py"],
        "filled",
        train="experiment=text/inpaint",
        samples={"filled": f"task=inpaint {GUIDED} n=10 draws=3 quality=false"},
        picture="samples/filled-*/images.png",
    ),
    System(
        "cascade-small",
        "latents",
        "The first stage of a cascade",
        ["Saharia et al. (2022)", "Ho et al. (2022)"],
        "x_1 ~ p(x_1 | text)",
        "Captioned digits of 8 x 8.",
        ["sdegen/sampling/stages.py"],
        "small",
        train="experiment=text/captioned_digits data.size=8 'net.mults=[1,2]' "
        "'net.attention=[0,1]' train.steps=1500",
        samples={"five": f"{ASKED} {GUIDED} n=2 quality=false"},
    ),
    System(
        "cascade",
        "latents",
        "A cascade",
        ["Saharia et al. (2022)", "Ho et al. (2022)"],
        "x_2 ~ p(x_2 | c, s, text),  c = sqrt(1 - s^2) A^+ x_1 + s z",
        "The first stage's samples, made large by a model that is told them, the noise that they "
        "were given, and the same captions.",
        ["sdegen/sampling/stages.py", "sdegen/losses/degradations.py"],
        "large",
        train="experiment=text/upsample",
        samples={
            "twice": f"task=superresolve task.augment=0.5 task.level=0.1 draws=1 n=10 {ASKED} "
            "image=outputs/small/samples/five-nfe40-seed0/samples.safetensors nfe=20 quality=false"
        },
        picture="samples/twice-*/images.png",
        needs=["cascade-small"],
    ),
]
"""In the order of the gallery."""
