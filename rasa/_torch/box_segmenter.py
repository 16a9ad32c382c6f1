"""The segmenter that SAM, SAM-HQ, SAM 2 and SAM 3's tracker are: boxes in, masks out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
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
from rasa.arrays import FloatArray
from rasa.errors import InputError
from rasa.types import Image, Masks

Features = tuple[Tensor, ...]
Multimask = Literal["single", "best"]

# Bytes that the decoder may take for the boxes that it sees at once. On a CPU 4 boxes of a published model fill it:
# with 16, whose tensors outgrow what the allocator keeps, a box took 1.7 times as long (0.15 s for 0.09 s, ViT-B;
# one thread; SAM 2.1 Hiera-T: 1.4 to 3.2 times in three rounds).
_DECODER_BYTES = {"cpu": 160_000_000}
_DECODER_BYTES_ELSEWHERE = 1_500_000_000
# Bytes per box and value of the smallest feature map; 28 to 43 MB a box were measured where this gives 38.
_DECODER_SHARE = 36


class View(Protocol):
    """How a model sees images: as a square, padded or with other proportions."""

    @property
    def side(self) -> int:
        """Height and width of the square, in pixels."""
        ...

    def __call__(self, images: Sequence[Image]) -> Tensor:
        """The input of the model, float32 ``(B, 3, side, side)`` on the CPU."""
        ...

    def frame(self, size: tuple[int, int]) -> Frame | None:
        """Where an image of ``size`` lies in the square; None where it fills it."""
        ...


class BoxNetwork(Protocol):
    """An image encoder and a decoder of boxes, in evaluation mode."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of the encoder and the decoder; box coordinates are encoded in float32 at least."""
        ...

    def to(self, device: torch.device) -> None:
        """Move all weights, in place."""
        ...

    def encode(self, pixels: Tensor) -> Features:
        """What the image encoder finds in ``(B, 3, side, side)``, each ``(B, C, h, w)``."""
        ...

    def decode(self, features: Features, boxes: Tensor, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """Masks of N boxes of one image.

        Args:
            features: Of one image, B = 1.
            boxes: float32 ``(N, 4)``, xyxy in pixels of the square.
            multimask: Three masks a box instead of one.

        Returns:
            Logits ``(N, M, h, w)`` and predicted intersection over union ``(N, M)``.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """What the image encoder found in one image; boxes on it need the decoder alone.

    Attributes:
        size: ``(height, width)`` of the image, in pixels.
        model: Which model made it.
        features: Each ``(1, C, h, w)`` on the model's device; 4 MB in float32 for every published SAM.
    """

    size: tuple[int, int]
    model: str
    features: Features


class BoxSegmenter:
    """Gives boxes masks; a :class:`rasa.protocols.Segmenter`.

    The image encoder runs once per image that has boxes, the decoder for all its boxes, a few at a time where they
    are many. Scores are the model's own prediction of a mask's intersection over union.

    Args:
        network: On its device and in its dtype.
        view: What becomes of an image before the network sees it.
        facts: What :meth:`describe` says first: ``model`` and the like.
        multimask: ``"single"``: the one mask that the model makes for an unambiguous prompt, as a box is; so did
            the demos of RAM and Grounded SAM (``multimask_output=False``); SAM 2 and 3 put their own best of three in
            its place where it is not stable. ``"best"``: of the three that it makes for an ambiguous prompt, such as
            whole, part and subpart, the one it rates best.
        min_region: Islands and holes of a mask below this area in pixels are dropped and filled; 0 leaves all.
        max_mask_bytes: Refuse a call whose masks would need more; one byte per pixel of each mask.
        batch_size: Images in the encoder at once.
        chunk: Boxes in the decoder at once, each about 40 MB in float32; None takes what the device is fastest with.
        provenance: Plain JSON values that :meth:`describe` adds, such as the checkpoint's name and sha256.

    Raises:
        InputError: If an option is out of range.
        DependencyError: If ``min_region`` is given and SciPy is not installed.
    """

    def __init__(  # noqa: PLR0913  (each is an independent choice with a default)
        self,
        network: BoxNetwork,
        view: View,
        *,
        facts: Mapping[str, Any],
        multimask: Multimask = "single",
        min_region: int = 0,
        max_mask_bytes: int = MAX_MASK_BYTES,
        batch_size: int = 1,
        chunk: int | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        _check_options(multimask, min_region, max_mask_bytes=max_mask_bytes, batch_size=batch_size, chunk=chunk)
        self._network, self._view = network, view
        self._multimask, self._min_region, self._max_mask_bytes = multimask, min_region, max_mask_bytes
        self._batch_size, self._chunk = batch_size, chunk
        self._facts, self._provenance = dict(facts), dict(provenance or {})

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
        if embeddings is None:
            known = self._embedded([image for image, rows in zip(images, checked, strict=True) if len(rows)])
        else:
            self._check_embeddings(images, embeddings)
            known = iter([found for found, rows in zip(embeddings, checked, strict=True) if len(rows)])
        return [
            self._decoded(image, rows, next(known)) if len(rows) else _nothing(image)
            for image, rows in zip(images, checked, strict=True)
        ]

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """One :class:`Embedding` per image, to be passed to :meth:`segment` any number of times."""
        return list(self._embedded(images))

    def to(self, device: str) -> Self:
        """Move the model to ``device``, in place; embeddings that were made before are of no use there.

        Raises:
            InputError: If torch knows no such device.
        """
        self._network.to(torch_device(device))
        return self

    def describe(self) -> Mapping[str, Any]:
        """Model, options and dtype, and the provenance that was given."""
        return {
            **self._facts,
            **self._provenance,
            "multimask": self._multimask,
            "min_region": self._min_region,
            "dtype": str(self._network.dtype).removeprefix("torch."),
        }

    @property
    def network(self) -> BoxNetwork:
        """The model without pre- and post-processing."""
        return self._network

    @property
    def _name(self) -> str:
        told = [self._provenance.get(key) for key in ("checkpoint", "weights")]
        told.append(str(self._provenance.get("sha256", ""))[:12])
        return " ".join(str(part) for part in (self._facts["model"], *told) if part)

    def _embedded(self, images: Sequence[Image]) -> Iterator[Embedding]:
        # A generator: a long list of images never has more than a batch of embeddings in memory.
        for start in range(0, len(images), self._batch_size):
            batch = images[start : start + self._batch_size]
            with torch.inference_mode():
                features = self._network.encode(self._view(batch).to(self._network.device, self._network.dtype))
            for i, image in enumerate(batch):
                yield Embedding(image.size, self._name, tuple(part[i : i + 1] for part in features))

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

    def _decoded(self, image: Image, boxes: FloatArray, embedding: Embedding) -> Masks:
        masks, scores = np.zeros((len(boxes), *image.size), np.bool_), np.zeros(len(boxes), np.float32)
        frame = self._view.frame(image.size)
        seen = frame.resized if frame else (self._view.side, self._view.side)
        prompts = torch.from_numpy(scale_boxes(boxes, image.size, seen)).to(self._network.device)
        step = self._chunk or self._boxes_at_once(embedding)
        several = self._multimask == "best"
        for start in range(0, len(boxes), step):
            part = slice(start, start + step)
            with torch.inference_mode():
                answers = self._network.decode(embedding.features, prompts[part], multimask=several)
                logits, quality = best_masks(*answers)
                scores[part] = mask_scores(quality, name=image.name)
                write_masks(masks[part], logits, frame=frame)
        clean_masks(masks, self._min_region)
        return Masks(masks, scores)

    def _boxes_at_once(self, embedding: Embedding) -> int:
        limit = _DECODER_BYTES.get(self._network.device.type, _DECODER_BYTES_ELSEWHERE)
        return max(1, limit // (_DECODER_SHARE * min(part.numel() for part in embedding.features)))


def _nothing(image: Image) -> Masks:
    return Masks(np.zeros((0, *image.size), np.bool_), np.zeros(0, np.float32))


def _check_options(multimask: str, min_region: int, *, max_mask_bytes: int, batch_size: int, chunk: int | None) -> None:
    if multimask not in get_args(Multimask):
        raise InputError(f'multimask must be "single" or "best", got {multimask!r}')
    for name, value in (("batch_size", batch_size), ("chunk", 1 if chunk is None else chunk)):
        if not value >= 1:
            raise InputError(f"{name} must be at least 1, got {value!r}")
    if not max_mask_bytes >= 0:
        raise InputError(f"max_mask_bytes must be at least 0, got {max_mask_bytes!r}")
    check_cleaning(min_region)
