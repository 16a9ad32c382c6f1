"""Sam3: boxes and masks for tags, by one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Sam3Model
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from rasa._torch.loading import torch_device
from rasa._torch.prompts import MAX_MASK_BYTES, check_cleaning, check_mask_room, clean_masks, write_masks
from rasa._torch.squash import Squash
from rasa.adapters.sam3.prompts import Prompt, prompts_of, read_prompts, tokenize
from rasa.adapters.sam3.segmenter import MEAN, STD
from rasa.arrays import FloatArray
from rasa.errors import ContractError, InputError
from rasa.ops.boxes import clip_boxes
from rasa.types import Image, Instances

# Sam3Processor of sam3 (confidence_threshold), which keeps what is above it.
BOX_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class _Texts:
    """Prompts and what the text encoder makes of them: features ``(N, 32, C)`` and the mask ``(N, 32)``."""

    rows: Mapping[str, int]
    features: Tensor
    kept: Tensor


@dataclass(frozen=True, slots=True)
class _Found:
    """What one image answered: boxes in pixels, scores, tags, and mask logits ``(N, h, w)``."""

    boxes: FloatArray
    scores: FloatArray
    tags: tuple[str, ...]
    logits: Tensor


class Sam3:
    """Finds the objects that tags name, with their masks; a :class:`rasa.protocols.DetectorSegmenter`.

    Every tag is a question of its own to the model, so that every box belongs to exactly one; two tags may find the
    same object, and ``Suppress`` keeps the better. The image encoder runs once per image and the text encoder once
    per distinct text of a call. A score is the match of box and text times the model's belief that the text is in
    the image at all. The model has no opinion on its masks: there are no mask scores.

    Args:
        model: In evaluation mode, on its device and in its dtype.
        tokenizer: Of transformers, with the model's vocabulary.
        box_threshold: Score above which a box is kept, in [0, 1].
        prompts: What to ask in place of a tag, one text or several: ``{"hydrant": "a red fire hydrant"}``.
        min_region: Islands and holes of a mask below this area in pixels are dropped and filled; 0 leaves all.
        max_mask_bytes: Refuse an image whose masks would need more; one byte per pixel of each mask.
        chunk: Texts asked at once; each has feature maps of its own, the finest 85 MB in float32 at 1008 pixels.
        provenance: Plain JSON values that :meth:`describe` adds.

    Raises:
        InputError: If the model is in training mode, or an option is out of range.
        DependencyError: If ``min_region`` is given and SciPy is not installed.

    Source:
        Carion et al., "SAM 3: Segment Anything with Concepts", arXiv:2511.16719.
    """

    def __init__(  # noqa: PLR0913  (each is an independent choice with a default)
        self,
        model: Sam3Model,
        tokenizer: Any,
        *,
        box_threshold: float = BOX_THRESHOLD,
        prompts: Mapping[str, str | Sequence[str]] | None = None,
        min_region: int = 0,
        max_mask_bytes: int = MAX_MASK_BYTES,
        chunk: int = 4,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if model.training:
            raise InputError("the model is in training mode, in which its answers are random; call model.eval() first")
        _check_options(box_threshold, chunk, max_mask_bytes)
        check_cleaning(min_region)
        self._model, self._tokenizer = model, tokenizer
        self._box_threshold, self._ontology = box_threshold, read_prompts(prompts)
        self._min_region, self._max_mask_bytes, self._chunk = min_region, max_mask_bytes, chunk
        self._provenance = dict(provenance or {})
        self._squash = Squash(model.config.vision_config.backbone_config.image_size, MEAN, STD, whole_levels=True)

    def detect_and_segment(self, images: Sequence[Image], tags: Sequence[Sequence[str]]) -> list[Instances]:
        """One :class:`rasa.Instances` per image, with masks; boxes in the order of the tags.

        Args:
            images: B images.
            tags: B lists of tags; nothing runs for an image without any.

        Raises:
            InputError: If a tag is longer than the model reads, or the masks of an image would not fit into memory.
            ContractError: If the model gives no number, as float16 may overflow.
        """
        if len(images) != len(tags):
            raise InputError(f"{len(images)} images need as many lists of tags, got {len(tags)}")
        asked = [prompts_of(names, self._ontology) for names in tags]
        texts = self._read([prompt for prompts in asked for prompt in prompts])
        return [
            self._instances(image, self._found(image, prompts, texts)) if prompts else _nothing(image)
            for image, prompts in zip(images, asked, strict=True)
        ]

    def to(self, device: str) -> Sam3:
        """Move the model to ``device``, in place.

        Raises:
            InputError: If torch knows no such device.
        """
        self._model.to(torch_device(device))
        return self

    def describe(self) -> Mapping[str, Any]:
        """Family, options and dtype, and the provenance that was given."""
        return {
            "model": "sam3",
            **self._provenance,
            "box_threshold": self._box_threshold,
            "prompts": {tag: list(texts) for tag, texts in self._ontology.items()},
            "min_region": self._min_region,
            "dtype": str(self._model.dtype).removeprefix("torch."),
        }

    def _read(self, prompts: Sequence[Prompt]) -> _Texts:
        distinct = list({prompt.text: prompt for prompt in prompts}.values())
        ids, kept = (part.to(self._model.device) for part in tokenize(self._tokenizer, distinct))
        parts = [slice(start, start + self._chunk) for start in range(0, len(ids), self._chunk)]
        with torch.inference_mode():
            features = [
                self._model.get_text_features(ids[part], attention_mask=kept[part]).pooler_output for part in parts
            ]
        rows = {prompt.text: row for row, prompt in enumerate(distinct)}
        return _Texts(rows, torch.cat(features) if features else kept, kept)

    def _found(self, image: Image, prompts: Sequence[Prompt], texts: _Texts) -> _Found:
        parts = [prompts[start : start + self._chunk] for start in range(0, len(prompts), self._chunk)]
        with torch.inference_mode():
            pixels = self._squash([image]).to(self._model.device, self._model.dtype)
            view = self._model.get_vision_features(pixel_values=pixels)
            answers = [self._ask(image, part, view=view, texts=texts) for part in parts]
        return _Found(
            np.concatenate([answer.boxes for answer in answers]),
            np.concatenate([answer.scores for answer in answers]),
            tuple(tag for answer in answers for tag in answer.tags),
            torch.cat([answer.logits for answer in answers]),
        )

    def _ask(self, image: Image, prompts: Sequence[Prompt], *, view: Any, texts: _Texts) -> _Found:
        """Answers of one image to a few prompts, which share its features without a copy."""
        rows = torch.tensor([texts.rows[prompt.text] for prompt in prompts], device=texts.features.device)
        answer = self._model(
            vision_embeds=_repeated(view, len(prompts)),
            text_embeds=BaseModelOutputWithPooling(pooler_output=texts.features[rows]),
            attention_mask=texts.kept[rows],
        )
        scores = (answer.pred_logits.float().sigmoid() * answer.presence_logits.float().sigmoid()).cpu().numpy()
        if not np.isfinite(scores).all():
            cure = "use bfloat16 or float32 if it runs in float16, else check its weights"
            raise ContractError(f"the model gave a score that is no number on {image.name!r}; {cure}")
        which, query = np.nonzero(scores > self._box_threshold)
        height, width = image.size
        boxes = answer.pred_boxes.float().cpu().numpy()[which, query]
        pixels = clip_boxes(boxes * np.array([width, height, width, height], np.float32), image.size)
        logits = answer.pred_masks[torch.from_numpy(which), torch.from_numpy(query)]
        return _Found(pixels, scores[which, query], tuple(prompts[i].tag for i in which.tolist()), logits)

    def _instances(self, image: Image, found: _Found) -> Instances:
        check_mask_room([image], [found.boxes], limit=self._max_mask_bytes)
        masks = np.zeros((len(found.boxes), *image.size), np.bool_)
        with torch.inference_mode():
            write_masks(masks, found.logits)
        clean_masks(masks, self._min_region)
        return Instances(found.boxes, found.scores, found.tags, masks=masks)


def _repeated(view: Any, count: int) -> Sam3VisionEncoderOutput:
    return Sam3VisionEncoderOutput(
        fpn_hidden_states=tuple(level.expand(count, -1, -1, -1) for level in view.fpn_hidden_states),
        fpn_position_encoding=tuple(level.expand(count, -1, -1, -1) for level in view.fpn_position_encoding),
    )


def _nothing(image: Image) -> Instances:
    return Instances(masks=np.zeros((0, *image.size), np.bool_))


def _check_options(box_threshold: float, chunk: int, max_mask_bytes: int) -> None:
    if not 0 <= box_threshold <= 1:
        raise InputError(f"box_threshold must be in [0, 1], got {box_threshold!r}")
    if not chunk >= 1:
        raise InputError(f"chunk must be at least 1, got {chunk!r}")
    if not max_mask_bytes >= 0:
        raise InputError(f"max_mask_bytes must be at least 0, got {max_mask_bytes!r}")
