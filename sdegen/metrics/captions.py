"""How well images fit their captions: by CLIP, and of captioned digits word by word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sdegen.checks import listed
from sdegen.data import captioned_digits
from sdegen.data.captions import COLOURS, NUMBERS, PLACES, SIZES


class CLIPScore:
    """100 max(cos(e_image, e_text), 0) of each image and its caption, by a CLIP model on disk.
    Hessel et al. (2021), whose w is 2.5 in place of 100: as the field reports it.

    It needs ``pip install 'sdegen[hf]'``. path: a folder that transformers' ``CLIPModel`` and
    ``CLIPProcessor`` were saved to; nothing is downloaded, and the weights' licence is that of
    whoever gave you them. ``name`` says which model it is: scores of two models do not compare.

    Raises ValueError without the library, for a folder that is none of these, and for weights that
    are not all there or of other shapes, which the library would draw at random.
    """

    def __init__(self, path: str | Path, device: str | torch.device = "cpu") -> None:
        try:
            from transformers import CLIPModel, CLIPTokenizer
            from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
        except ImportError as error:
            raise ValueError("transformers is not installed: pip install 'sdegen[hf]'.") from error
        from safetensors import SafetensorError

        if not Path(path).is_dir():
            raise ValueError(f"There is no folder {str(path)!r} of a CLIP model.")
        local: dict[str, Any] = {"local_files_only": True}
        try:
            found: Any = CLIPModel.from_pretrained(
                str(path), output_loading_info=True, ignore_mismatched_sizes=True, **local
            )
            self.tokenizer: Any = CLIPTokenizer.from_pretrained(str(path), **local)
            self.images: Any = CLIPImageProcessorPil.from_pretrained(str(path), **local)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{str(path)!r} is no folder of a CLIP model: {reason}") from error
        model, info = found
        wrong = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
        if wrong:
            raise ValueError(
                f"{str(path)!r} is no folder of a CLIP model: its weights lack {min(wrong)}, or "
                f"have it in another shape ({len(wrong)} such)."
            )
        self.model = model.to(device).eval()
        self.name, self.device = Path(path).name, device

    @torch.no_grad()
    def __call__(self, x: Tensor, captions: Sequence[str], batch: int = 100) -> Tensor:
        """Scores (n,) of images x, uint8 (n, 3, h, w), and as many captions.

        Captions longer than the model takes are cut. ValueError for another x, none,
        or not n captions.
        """
        if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] != 3 or not len(x):
            raise ValueError(
                f"Scores are of uint8 (n, 3, h, w) with n >= 1, but x is {x.dtype} of "
                f"{tuple(x.shape)}."
            )
        if len(listed("captions", captions)) != len(x):
            raise ValueError(f"There are {len(captions)} captions of {len(x)} images.")
        found = []
        most = self.model.config.text_config.max_position_embeddings
        how: dict[str, Any] = {"padding": True, "truncation": True, "max_length": most}
        for first in range(0, len(x), batch):
            pictures = [each.permute(1, 2, 0).cpu().numpy() for each in x[first : first + batch]]
            pixels = self.images(pictures, return_tensors="pt").to(self.device)
            said = list(captions[first : first + batch])
            words = self.tokenizer(said, return_tensors="pt", **how)
            out = self.model(**words.to(self.device), **pixels)
            cosine = torch.cosine_similarity(out.image_embeds, out.text_embeds)
            found.append(100 * cosine.clamp(min=0).cpu())
        return torch.cat(found)


class DigitJudge:
    """Says of captioned digits what is in them: size, colour, digit and place, as their captions
    do.

    The place is the quarter with the most ink, the colour the nearest of four in direction, the
    size whether ink reaches the quarter's first or last row; these three are exact on the data.
    The digit is what a support vector machine says of the ink, fitted to the training images.
    size: of the pictures.
    """

    def __init__(self, size: int = 16) -> None:
        from sklearn.svm import SVC

        train = captioned_digits("train", size)
        self.size, self.classifier = size, SVC(gamma="scale", C=10.0)
        some = slice(None, None, 3)  # an image is in eight pictures
        self.classifier.fit(self.seen(train.x[some])[0].flatten(1).numpy(), train.y[some].numpy())

    def seen(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The ink (n, 8, 8) of a digit at full size, and the numbers (n,) of place, colour and
        size among ``PLACES``, ``COLOURS`` and ``SIZES``."""
        half = self.size // 2
        light = ((x.detach().float().cpu() + 1) / 2).clamp(0, 1)
        quarters = light.unfold(2, half, half).unfold(3, half, half)  # (n, 3, 2, 2, half, half)
        quarters = quarters.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
        place = quarters.sum((2, 3, 4)).argmax(1)
        own = quarters[torch.arange(len(x)), place]
        shares = own.sum((2, 3))
        ways = torch.tensor(list(COLOURS.values()))
        colour = F.cosine_similarity(shares[:, None], ways[None], dim=2).argmax(1)
        ink = own.mean(1) / ways[colour].mean(1)[:, None, None]
        side = round(half * SIZES["small"])
        edge = (half - side) // 2
        outside = torch.cat([ink[:, :edge], ink[:, half - edge :]], dim=1)
        large = (outside.flatten(1).amax(1) > 0.2).long()
        inner = ink[:, edge : half - edge, edge : half - edge]
        both = [F.interpolate(each[:, None], (8, 8), mode="bilinear") for each in (inner, ink)]
        return (
            torch.where(large[:, None, None, None] == 1, both[1], both[0])[:, 0],
            place,
            colour,
            large,
        )

    def __call__(self, x: Tensor) -> list[str]:
        """A caption of each of x (n, 3, size, size)."""
        if x.ndim != 4 or x.shape[1:] != (3, self.size, self.size):
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (n, 3, {self.size}, {self.size})."
            )
        ink, *others = self.seen(x)
        digit = self.classifier.predict(ink.flatten(1).numpy()).tolist()
        places, colours, sizes = (list(each) for each in (PLACES, COLOURS, SIZES))
        return [
            f"{sizes[large]} {colours[colour]} {NUMBERS[k]} {places[place]}"
            for k, place, colour, large in zip(
                digit, *(each.tolist() for each in others), strict=True
            )
        ]


def words_right(found: Sequence[str], asked: Sequence[str]) -> dict[str, float]:
    """The shares of samples whose size, colour, digit, place, and whose whole caption is right:
    captions of ``DigitJudge`` beside those that were asked for. ValueError for none, and where
    these are not as many."""
    if len(listed("found", found)) != len(listed("asked", asked)) or not len(found):
        raise ValueError(f"There are {len(found)} captions found, and {len(asked)} asked for.")
    pairs = [(a.split(), b.split()) for a, b in zip(found, asked, strict=True)]
    parts = {
        "size": slice(0, 1),
        "colour": slice(1, 2),
        "digit": slice(2, 3),
        "place": slice(3, 5),
        "all": slice(0, 5),
    }
    return {
        name: sum(a[part] == b[part] for a, b in pairs) / len(pairs)
        for name, part in parts.items()
    }
