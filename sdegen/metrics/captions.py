"""How well images fit their captions, by CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


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
        if len(captions) != len(x):
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
