"""SamSegmenter: a mask for every box, by Segment Anything or SAM-HQ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from rasa._torch.loading import torch_device
from rasa._torch.prompts import (
    MAX_MASK_BYTES,
    Frame,
    best_masks,
    check_boxes,
    check_cleaning,
    check_mask_room,
    clean_masks,
    mask_scores,
    scale_boxes,
    write_masks,
)
from rasa.adapters.sam.network import Features, SamNetwork
from rasa.arrays import FloatArray
from rasa.errors import InputError
from rasa.types import Image, Masks

Multimask = Literal["single", "best"]

# Of RGB values 0 to 255 (build_sam.py of segment-anything 1.0).
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)
# Bytes that the decoder may take for the boxes that it sees at once. On a CPU 4 boxes of a published model fill it:
# with 16, whose tensors outgrow what the allocator keeps, a box took 1.7 times as long (0.15 s for 0.09 s, ViT-B).
_DECODER_BYTES = {"cpu": 160_000_000}
_DECODER_BYTES_ELSEWHERE = 1_500_000_000
# Bytes per box and value of the embedding; 28 to 38 MB a box were measured where this gives 38.
_DECODER_SHARE = 36


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """What the image encoder found in one image; boxes on it need the decoder alone.

    Attributes:
        size: ``(height, width)`` of the image, in pixels.
        model: Which model made it.
        features: Tensors of one image, on the model's device; 4 MB in float32 for every published SAM.
    """

    size: tuple[int, int]
    model: str
    features: Features


class SamSegmenter:
    """Gives boxes masks; a :class:`rasa.protocols.Segmenter`.

    The image encoder runs once per image that has boxes, the decoder for all its boxes, a few at a time
    where they are many. Scores are the model's own prediction of a mask's intersection over union.

    Args:
        network: On its device and in its dtype.
        multimask: ``"single"``: the one mask that the model makes for an unambiguous prompt, as a box is; so did
            the demos of RAM and Grounded SAM (``multimask_output=False``). ``"best"``: of the three that it makes
            for an ambiguous one, such as whole, part and subpart, the one it rates best.
        min_region: Islands and holes of a mask below this area in pixels are dropped and filled; 0 leaves all.
        max_mask_bytes: Refuse a call whose masks would need more; one byte per pixel of each mask.
        batch_size: Images in the encoder at once.
        provenance: Plain JSON values that :meth:`describe` adds, such as the checkpoint's name and sha256.

    Raises:
        InputError: If an option is out of range.
        DependencyError: If ``min_region`` is given and SciPy is not installed.
    """

    def __init__(
        self,
        network: SamNetwork,
        *,
        multimask: Multimask = "single",
        min_region: int = 0,
        max_mask_bytes: int = MAX_MASK_BYTES,
        batch_size: int = 1,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if multimask not in get_args(Multimask):
            raise InputError(f'multimask must be "single" or "best", got {multimask!r}')
        if not batch_size >= 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size!r}")
        if not max_mask_bytes >= 0:
            raise InputError(f"max_mask_bytes must be at least 0, got {max_mask_bytes!r}")
        check_cleaning(min_region)
        self._network = network
        self._multimask, self._min_region = multimask, min_region
        self._max_mask_bytes, self._batch_size = max_mask_bytes, batch_size
        self._provenance = dict(provenance or {})

    def segment(
        self,
        images: Sequence[Image],
        boxes: Sequence[FloatArray],
        *,
        embeddings: Sequence[Embedding] | None = None,
    ) -> list[Masks]:
        """One mask per box; see :class:`rasa.protocols.Segmenter`.

        Args:
            images: B images.
            boxes: B float32 ``(N, 4)``, xyxy in pixels; what reaches outside its image is cut.
            embeddings: What :meth:`embed` gave for the same images, so that the encoder need not run again.

        Raises:
            InputError: If boxes are malformed, their masks would not fit, or an embedding is of another image's
                size or another model.
            ContractError: If the model gives no number, as float16 may overflow.
        """
        checked = check_boxes(images, boxes)
        check_mask_room(images, checked, limit=self._max_mask_bytes)
        if embeddings is not None:
            self._check_embeddings(images, embeddings)
        found: list[Masks] = []
        for start in range(0, len(images), self._batch_size):
            part = slice(start, start + self._batch_size)
            kept = self._embed_asked(images[part], checked[part]) if embeddings is None else embeddings[part]
            found += map(self._segment, images[part], checked[part], kept)
        return found

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """One :class:`Embedding` per image, to be passed to :meth:`segment` any number of times."""
        found: list[Embedding] = []
        for start in range(0, len(images), self._batch_size):
            found += self._embed(images[start : start + self._batch_size])
        return found

    def to(self, device: str) -> SamSegmenter:
        """Move the model to ``device``, in place; embeddings that were made before are of no use there.

        Raises:
            InputError: If torch knows no such device.
        """
        self._network.to(torch_device(device))
        return self

    def describe(self) -> Mapping[str, Any]:
        """Model, backend, dtype and options, and the provenance that was given."""
        return {
            "model": self._network.architecture.name,
            **self._provenance,
            "backend": self._network.backend,
            "multimask": self._multimask,
            "min_region": self._min_region,
            "dtype": str(self._network.dtype).removeprefix("torch."),
        }

    @property
    def network(self) -> SamNetwork:
        """The model without pre- and post-processing."""
        return self._network

    @property
    def _name(self) -> str:
        parts = self._network.architecture.name, self._provenance.get("sha256"), self._provenance.get("checkpoint")
        return " ".join(str(part) for part in parts if part)

    def _embed_asked(self, images: Sequence[Image], boxes: Sequence[FloatArray]) -> list[Embedding | None]:
        """Embeddings of the images that have boxes; None for the others."""
        asked = [len(rows) > 0 for rows in boxes]
        made = iter(self._embed([image for image, wanted in zip(images, asked, strict=True) if wanted]))
        return [next(made) if wanted else None for wanted in asked]

    def _embed(self, images: Sequence[Image]) -> list[Embedding]:
        if not images:
            return []
        side = self._network.architecture.side
        pixels = torch.stack([preprocess(image, side) for image in images])
        with torch.inference_mode():
            features = self._network.encode(pixels.to(self._network.device, self._network.dtype))
        return [
            Embedding(image.size, self._name, tuple(part[i : i + 1] for part in features))
            for i, image in enumerate(images)
        ]

    def _check_embeddings(self, images: Sequence[Image], embeddings: Sequence[Embedding]) -> None:
        if len(images) != len(embeddings):
            raise InputError(f"{len(images)} images need as many embeddings, got {len(embeddings)}")
        for image, embedding in zip(images, embeddings, strict=True):
            if embedding.size != image.size:
                raise InputError(
                    f"the embedding given for {image.name!r} is of an image of size {embedding.size}, "
                    f"and this one has {image.size}; pass what embed() gave for the same images, in order"
                )
            if embedding.model != self._name:
                raise InputError(
                    f'the embedding given for {image.name!r} is by "{embedding.model}", and this model is '
                    f'"{self._name}"; embed the image again'
                )

    def _segment(self, image: Image, boxes: FloatArray, embedding: Embedding | None) -> Masks:
        masks = np.zeros((len(boxes), *image.size), np.bool_)
        scores = np.zeros(len(boxes), np.float32)
        if embedding is None or not len(boxes):
            return Masks(masks, scores)
        frame = Frame.around(image.size, self._network.architecture.side)
        scaled = torch.from_numpy(scale_boxes(boxes, image.size, frame.resized))
        step = self._boxes_at_once(embedding)
        for start in range(0, len(boxes), step):
            part = slice(start, start + step)
            logits, quality = self._decode(embedding, scaled[part])
            scores[part] = mask_scores(quality, name=image.name)
            with torch.inference_mode():
                write_masks(masks[part], logits, frame=frame)
        clean_masks(masks, self._min_region)
        return Masks(masks, scores)

    def _decode(self, embedding: Embedding, boxes: Tensor) -> tuple[Tensor, Tensor]:
        several = self._multimask == "best"
        with torch.inference_mode():
            boxes = boxes.to(self._network.device)
            return best_masks(*self._network.decode(embedding.features, boxes, multimask=several))

    def _boxes_at_once(self, embedding: Embedding) -> int:
        limit = _DECODER_BYTES.get(self._network.device.type, _DECODER_BYTES_ELSEWHERE)
        return max(1, limit // (_DECODER_SHARE * embedding.features[0].numel()))


def preprocess(image: Image, side: int) -> Tensor:
    """Resize an image so that its longer side fits, normalise it, and pad it with zeros at the right and bottom.

    Returns:
        float32 ``(3, side, side)``.

    Source:
        ``ResizeLongestSide.apply_image`` and ``Sam.preprocess`` of segment-anything 1.0.
    """
    height, width = Frame.around(image.size, side).resized
    resized = PIL.Image.fromarray(image.pixels).resize((width, height), PIL.Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    padded = torch.zeros(3, side, side)
    padded[:, :height, :width] = (pixels - mean) / std
    return padded
