"""BLIP as tagger: image-text contrast (ITC), and image-text matching (ITM) of the best classes by ITC."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, BlipForImageTextRetrieval, BlipImageProcessor

from rasa.arrays import FloatArray
from rasa.errors import InputError, WeightsError
from rasa.types import Image
from rasa_ram._fingerprint import json_hash, weights_hash
from rasa_ram.evaluation.benchmarks.benchmark import Benchmark
from rasa_ram.evaluation.predictors.asked import Asked

PUBLISHED = "Salesforce/blip-itm-base-coco"
# The papers do not say which text stands for a tag; this is our protocol.
PROMPT = "a photo of a {}"
_TEXTS_AT_ONCE = 256


class BlipPredictor:
    """Scores by BLIP; no threshold is published for them.

    Args:
        model: ``BlipForImageTextRetrieval``, on its device.
        tokenizer: For it.
        image_processor: For it.
        benchmark: Gives the words of the classes.
        mode: ``"itc"`` is the cosine of the projections, in [-1, 1]. ``"itm"`` is the matching head's probability, in
            [0, 1], for the ``top_k`` best classes of an image by ITC; all others stay below, by cosine - 2.
        top_k: Each costs a pass of the text encoder over the image; a run over 4,000 tags took 87 s an image (A100).

    Raises:
        InputError: If the mode is unknown or ``top_k`` is not positive.
    """

    thresholds: FloatArray | None = None

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        benchmark: Benchmark,
        *,
        mode: Literal["itc", "itm"] = "itc",
        top_k: int = 64,
    ) -> None:
        if mode not in {"itc", "itm"}:
            raise InputError(f'mode must be "itc" or "itm", got {mode!r}')
        if top_k < 1:
            raise InputError(f"top_k must be at least 1 class, got {top_k}")
        self._model, self._processor = model.eval(), image_processor
        self._mode, self._top_k, self._asked = mode, top_k, Asked.of(benchmark.asked)
        tokens = tokenizer([PROMPT.format(word) for word in self._asked.words], padding=True, return_tensors="pt")
        self._ids, self._mask = tokens["input_ids"], tokens["attention_mask"]
        with torch.inference_mode():
            self._texts = torch.cat([self._text_vectors(part) for part in self._parts(len(self._ids))])

    def scores(self, images: Sequence[Image]) -> FloatArray:
        """float32 ``(B, T)``."""
        arrays = [np.array(image.pixels) for image in images]
        # Said, for one row of three pixels could be taken for three channels.
        pixels = self._processor(images=arrays, input_data_format="channels_last", return_tensors="pt")
        with torch.inference_mode():
            states = self._model.vision_model(pixel_values=pixels["pixel_values"].to(self._device)).last_hidden_state
            unit = torch.nn.functional.normalize(self._model.vision_proj(states[:, 0]), dim=-1)
            found = unit @ self._texts.T
            if self._mode == "itm":
                found = torch.stack([self._matched(*pair) for pair in zip(states, found, strict=True)])
        return self._asked.spread(found.float().cpu().numpy())

    def describe(self) -> Mapping[str, Any]:
        """Name, prompt, how many classes are matched, and hashes of all that comes from the model's folder."""
        name = str(getattr(self._model.config, "_name_or_path", "") or "blip")
        top = {"top_k": self._top_k} if self._mode == "itm" else {}
        return {"model": f"blip-{self._mode}", "checkpoint": name, "prompt": PROMPT, **top, **self._hashes}

    @cached_property
    def _hashes(self) -> Mapping[str, str]:
        settings = [self._model.config.to_json_string(), self._processor.to_json_string()]
        return {
            "weights": weights_hash(self._model),
            "settings": json_hash(settings),
            "tokens": json_hash([self._ids.tolist(), self._mask.tolist()]),
        }

    @property
    def _device(self) -> Any:
        return next(self._model.parameters()).device

    def _parts(self, count: int) -> list[slice]:
        return [slice(start, start + _TEXTS_AT_ONCE) for start in range(0, count, _TEXTS_AT_ONCE)]

    def _text_vectors(self, part: slice) -> Tensor:
        ids, mask = self._ids[part].to(self._device), self._mask[part].to(self._device)
        states = self._model.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return torch.nn.functional.normalize(self._model.text_proj(states[:, 0]), dim=-1)

    def _matched(self, states: Tensor, cosines: Tensor) -> Tensor:
        """Scores of one image: ``states`` is ``(L, C)``, ``cosines`` ``(W,)``."""
        best = cosines.topk(min(self._top_k, len(cosines))).indices
        scores = cosines - 2
        for part in self._parts(len(best)):
            chosen = best[part]
            seen = states.expand(len(chosen), *states.shape)
            output = self._model.text_encoder(
                input_ids=self._ids[chosen.cpu()].to(self._device),
                attention_mask=self._mask[chosen.cpu()].to(self._device),
                encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=self._device),
            )
            scores[chosen] = self._model.itm_head(output.last_hidden_state[:, 0]).softmax(dim=-1)[:, 1]
        return scores


def load_blip(
    benchmark: Benchmark,
    source: str | os.PathLike[str] = PUBLISHED,
    *,
    mode: Literal["itc", "itm"] = "itc",
    top_k: int = 64,
    device: str = "cpu",
) -> BlipPredictor:
    """BLIP for retrieval from a folder, or from the Hugging Face hub.

    Raises:
        WeightsError: If model, tokenizer and image processor cannot be loaded.
    """
    try:
        model = BlipForImageTextRetrieval.from_pretrained(source, use_safetensors=True).to(device)
        tokenizer, processor = AutoTokenizer.from_pretrained(source), BlipImageProcessor.from_pretrained(source)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise WeightsError(f"cannot load BLIP from {source}: {reason}; give the folder of {PUBLISHED}") from error
    return BlipPredictor(model, tokenizer, processor, benchmark, mode=mode, top_k=top_k)
