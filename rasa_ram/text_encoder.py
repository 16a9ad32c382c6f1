"""From tags and descriptions to label vectors: the text encoder's role, and open_clip in it."""

from __future__ import annotations

import hashlib
import os
import pickle  # for its error class; nothing is unpickled here
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import open_clip
import torch
from torch import nn

from rasa.arrays import FloatArray
from rasa.errors import ConfigError, InputError, RasaWarning, WeightsError
from rasa.weights import fetch

# The encoder whose space the published label vectors live in (arXiv:2306.03514, section 3.3). OpenAI trained it with
# a quick approximation of GELU, which open_clip has under this name; the exact one gives other vectors.
ARCHITECTURE = "ViT-B-16-quickgelu"
CHECKPOINT = "clip-vit-b-16.openai"


@runtime_checkable
class TextEncoder(Protocol):
    """Turns texts into vectors of the space that the model's label vectors live in."""

    @property
    def identity(self) -> str:
        """What decides the vectors, such as name and hash of the weights; equal identities give equal vectors."""
        ...

    def prompts(self, tag: str) -> Sequence[str]:
        """The texts whose mean stands for ``tag``; at least one."""
        ...

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """float32 ``(N, C)``, one vector per text, of any length but zero."""
        ...


class OpenClipTextEncoder:
    """The text tower of a CLIP model of open_clip; prompts are open_clip's 80 templates for ImageNet.

    Args:
        model: What ``open_clip.create_model`` returns, on its device and in its dtype.
        tokenizer: What ``open_clip.get_tokenizer`` returns for it.
        name: What the identity calls it.
        batch_size: Texts encoded at once.

    Raises:
        InputError: If ``batch_size`` is not positive.

    Source:
        Radford et al., arXiv:2103.00020, section 3.1.4, for the ensemble of prompts.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, name: str = "open_clip", batch_size: int = 256) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1 text, got {batch_size}")
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._name = name
        self._batch_size = batch_size

    @cached_property
    def identity(self) -> str:
        """Name and sha256 of the text tower's weights."""
        digest = hashlib.sha256()
        for key, tensor in sorted(self._model.state_dict().items()):
            if not key.startswith("visual."):
                digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy() if tensor.ndim else b"")
        return f"{self._name}:{digest.hexdigest()}"

    def prompts(self, tag: str) -> list[str]:
        """``a bad photo of a <tag>.`` and 79 more, from ``open_clip.OPENAI_IMAGENET_TEMPLATES``."""
        return [template(tag) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Unit-norm float32 ``(N, C)``; a text that is too long is cut with a :class:`rasa.errors.RasaWarning`."""
        parts = [texts[start : start + self._batch_size] for start in range(0, len(texts), self._batch_size)]
        if not parts:
            raise InputError("no text to encode; pass at least one")
        return np.concatenate([self._encode(part) for part in parts])

    def _encode(self, texts: Sequence[str]) -> FloatArray:
        tokens = self._tokenizer(list(texts))
        self._warn_of_cuts(texts, tokens)
        device = next(self._model.parameters()).device
        with torch.inference_mode():
            vectors = self._model.encode_text(tokens.to(device)).float()
            unit: FloatArray = torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy()
        return unit

    def _warn_of_cuts(self, texts: Sequence[str], tokens: torch.Tensor) -> None:
        length = tokens.shape[1]
        for row in torch.nonzero(tokens[:, -1]).flatten().tolist():  # full to the last place: cut, or just fits
            if len(self._tokenizer.encode(texts[row])) + 2 > length:
                message = f"the text encoder reads {length} tokens; the rest of {texts[row][:60]!r}... is left out"
                warnings.warn(message, RasaWarning, stacklevel=4)
                return


def load_text_encoder(
    weights: str | os.PathLike[str] | None = None, *, device: str = "cpu", dtype: str = "float32"
) -> OpenClipTextEncoder:
    """Load the text tower of CLIP ViT-B/16 by OpenAI, which RAM's and RAM++'s label vectors are made with.

    Args:
        weights: Its weight file; None takes :data:`CHECKPOINT` from :mod:`rasa.weights`, fetched if need be.
        device: As torch names it.
        dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``.

    Raises:
        ConfigError: If the dtype is none of the three.
        WeightsError: If the weights cannot be had, or the file does not hold them.
    """
    model = load_clip(weights, device=device, dtype=dtype)
    model.visual = None  # 86 million parameters that no text needs
    return OpenClipTextEncoder(model, open_clip.get_tokenizer(ARCHITECTURE), name=f"open_clip/{ARCHITECTURE}")


def load_clip(weights: str | os.PathLike[str] | None = None, *, device: str = "cpu", dtype: str = "float32") -> Any:
    """Load CLIP ViT-B/16 by OpenAI, both towers, as open_clip's module; arguments as :func:`load_text_encoder`.

    Raises:
        ConfigError: If the dtype is none of the three.
        WeightsError: If the weights cannot be had, or the file does not hold them.
    """
    precisions = {"float32": "fp32", "float16": "pure_fp16", "bfloat16": "pure_bf16"}
    if dtype not in precisions:
        raise ConfigError(f"dtype of CLIP must be one of {', '.join(precisions)}, got {dtype!r}")
    path = fetch(CHECKPOINT) if weights is None else Path(weights)
    if not path.is_file():
        raise WeightsError(f"{path} is no file; pass the weight file of CLIP ViT-B/16, or None to fetch it")
    try:
        return open_clip.create_model(
            ARCHITECTURE, pretrained=str(path), precision=precisions[dtype], device=device, weights_only=True
        )
    except (RuntimeError, OSError, ValueError, LookupError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise WeightsError(f"{path} does not hold the weights of CLIP ViT-B/16: {reason}; fetch it again") from error
