"""Segmenters of the SAM 2 design in transformers, which SAM 3's tracker shares: boxes in, masks out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from rasa._torch.loading import torch_device
from rasa._torch.prompts import (
    MAX_MASK_BYTES,
    best_masks,
    check_boxes,
    check_cleaning,
    check_mask_room,
    clean_masks,
    mask_scores,
    scale_boxes,
    write_masks,
)
from rasa._torch.squash import Squash
from rasa.arrays import FloatArray
from rasa.errors import InputError
from rasa.types import Image, Masks

Multimask = Literal["single", "best"]


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """What the image encoder says of one image: keep it, and later boxes cost the decoder alone.

    Attributes:
        features: Each ``(1, C, h, w)`` on the model's device, from fine to coarse.
        size: ``(height, width)`` of the image in pixels.
        model: Which model made it.
    """

    features: tuple[Tensor, ...]
    size: tuple[int, int]
    model: str


class BoxSegmenter:
    """Masks from boxes by a ``Sam2Model`` or ``Sam3TrackerModel``; adapters say how images are prepared.

    Args:
        model: In evaluation mode, on its device and in its dtype. In half precision the coordinates of the boxes
            are encoded in float32 all the same: bfloat16 has no numbers closer than 4 px at 1024.
        squash: What becomes of an image before the model sees it.
        name: Of the model and its weights, to tell its embeddings from others.
        multimask: ``"single"``: the model's one mask for a box, or its own best of three where that one is not
            stable. ``"best"``: always the best of three by predicted intersection over union.
        min_region: Islands and holes of a mask below this area in pixels are dropped and filled; 0 leaves all.
        max_mask_bytes: Refuse a call whose masks would need more; one byte per pixel of each mask.
        batch_size: Images in the encoder at once.
        chunk: Boxes in the decoder at once; each holds 43 MB in float32 meanwhile (SAM 2.1, measured).

    Raises:
        InputError: If the model is in training mode, or an option is out of range.
        DependencyError: If ``min_region`` is given and SciPy is not installed.
    """

    def __init__(  # noqa: PLR0913  (each is an independent choice with a default)
        self,
        model: nn.Module,
        squash: Squash,
        *,
        name: str,
        multimask: Multimask = "single",
        min_region: int = 0,
        max_mask_bytes: int = MAX_MASK_BYTES,
        batch_size: int = 1,
        chunk: int = 16,
    ) -> None:
        if model.training:
            raise InputError("the model is in training mode, in which its answers are random; call model.eval() first")
        _check_options(multimask, min_region, max_mask_bytes=max_mask_bytes, batch_size=batch_size, chunk=chunk)
        self._model: Any = model
        self._squash, self._name = squash, name
        self._multimask, self._min_region, self._max_mask_bytes = multimask, min_region, max_mask_bytes
        self._batch_size, self._chunk = batch_size, chunk
        weight = next(model.parameters())
        self._device, self._dtype = weight.device, weight.dtype
        if weight.dtype in (torch.bfloat16, torch.float16):
            self._model.prompt_encoder.shared_embedding.float()

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """One embedding per image."""
        return list(self._embedded(images))

    def segment(
        self, images: Sequence[Image], boxes: Sequence[FloatArray], embeddings: Sequence[Embedding] | None
    ) -> list[Masks]:
        """One ``Masks`` per image; the encoder runs for images that have boxes and no embedding.

        Raises:
            InputError: If boxes are malformed, the masks would not fit into memory, or embeddings are of other images.
            ContractError: If the model gives no number for a mask, as float16 may overflow.
        """
        checked = check_boxes(images, boxes)
        check_mask_room(images, checked, limit=self._max_mask_bytes)
        if embeddings is None:
            known = self._embedded([image for image, rows in zip(images, checked, strict=True) if len(rows)])
        else:
            self._check_embeddings(images, embeddings)
            known = iter([found for found, rows in zip(embeddings, checked, strict=True) if len(rows)])
        return [
            self._decoded(image, rows, next(known)) if len(rows) else _nothing(image)
            for image, rows in zip(images, checked, strict=True)
        ]

    def to(self, device: str) -> None:
        """Move the model, in place; embeddings that were made before are of no use there.

        Raises:
            InputError: If torch knows no such device.
        """
        self._device = torch_device(device)
        self._model.to(self._device)

    def describe(self) -> Mapping[str, Any]:
        """The options that change results, and the dtype."""
        options = {"multimask": self._multimask, "min_region": self._min_region}
        return {**options, "dtype": str(self._dtype).removeprefix("torch.")}

    def _embedded(self, images: Sequence[Image]) -> Iterator[Embedding]:
        # A generator: a long list of images never has more than a batch of embeddings in memory.
        for start in range(0, len(images), self._batch_size):
            batch = images[start : start + self._batch_size]
            with torch.inference_mode():
                pixels = self._squash(batch).to(self._device, self._dtype)
                levels = self._model.get_image_embeddings(pixels)
            for i, image in enumerate(batch):
                yield Embedding(tuple(level[i : i + 1] for level in levels), image.size, self._name)

    def _decoded(self, image: Image, boxes: FloatArray, embedding: Embedding) -> Masks:
        masks, quality = np.zeros((len(boxes), *image.size), np.bool_), np.zeros(len(boxes), np.float32)
        side = self._squash.side
        prompts = torch.from_numpy(scale_boxes(boxes, image.size, (side, side))).to(self._device)
        for start in range(0, len(boxes), self._chunk):
            chosen = slice(start, start + self._chunk)
            with torch.inference_mode():
                logits, scores = self._decode(embedding, prompts[chosen])
                write_masks(masks[chosen], logits)
            quality[chosen] = mask_scores(scores, name=image.name)
        clean_masks(masks, self._min_region)
        return Masks(masks, quality)

    def _decode(self, embedding: Embedding, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(N, h, w)`` and predicted intersection over union ``(N,)`` of boxes ``(N, 4)``."""
        best = self._multimask == "best"
        if self._dtype == torch.float64:
            boxes = boxes.double()
        answer = self._model(image_embeddings=list(embedding.features), input_boxes=boxes[None], multimask_output=best)
        return best_masks(answer.pred_masks[0], answer.iou_scores[0])

    def _check_embeddings(self, images: Sequence[Image], embeddings: Sequence[Embedding]) -> None:
        if len(images) != len(embeddings):
            raise InputError(f"{len(images)} images need as many embeddings, got {len(embeddings)}")
        for image, embedding in zip(images, embeddings, strict=True):
            want, got = (image.size, self._name), (embedding.size, embedding.model)
            if want != got:
                raise InputError(
                    f"the embedding for {image.name!r} is of size and model {got}, not {want}; "
                    "pass embed(images) of the same images, in the same order, by the same model"
                )


def _nothing(image: Image) -> Masks:
    return Masks(np.zeros((0, *image.size), np.bool_), np.zeros(0, np.float32))


def _check_options(multimask: str, min_region: int, *, max_mask_bytes: int, **counts: int) -> None:
    if multimask not in get_args(Multimask):
        raise InputError(f'multimask must be "single" or "best", got {multimask!r}')
    for name, value in counts.items():
        if not value >= 1:
            raise InputError(f"{name} must be at least 1, got {value!r}")
    if not max_mask_bytes >= 0:
        raise InputError(f"max_mask_bytes must be at least 0, got {max_mask_bytes!r}")
    check_cleaning(min_region)
