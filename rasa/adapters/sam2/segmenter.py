"""Sam2Segmenter: masks from boxes by SAM 2.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import Sam2Model

from rasa._torch.box_segmenter import BoxSegmenter, Embedding
from rasa._torch.squash import Squash
from rasa.arrays import FloatArray
from rasa.types import Image, Masks

# SAM2Transforms of sam2 1.1.0: it resizes floating-point images, so nothing is rounded.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Sam2Segmenter:
    """Gives every box the pixels of its object; a :class:`rasa.protocols.Segmenter`.

    Images are embedded once each, all boxes of an image share a call of the decoder, and masks have the size of
    the image. There is one mask per box by default, as the Grounded SAM 2 demo asks for: a box says well enough
    what is meant, and where the one mask is not stable the model's own best of three stands in for it.

    Args:
        model: In evaluation mode, on its device and in its dtype.
        provenance: Plain JSON values that :meth:`describe` adds, such as the checkpoint's name and sha256.
        options: ``multimask``, ``min_region``, ``max_mask_bytes``, ``batch_size`` and ``chunk`` of
            :class:`rasa._torch.box_segmenter.BoxSegmenter`.

    Raises:
        InputError: If the model is in training mode, or an option is out of range.
        DependencyError: If ``min_region`` is given and SciPy is not installed.

    Source:
        Ravi et al., "SAM 2: Segment Anything in Images and Videos", arXiv:2408.00714; ``SAM2ImagePredictor``.
    """

    def __init__(self, model: Sam2Model, *, provenance: Mapping[str, Any] | None = None, **options: Any) -> None:
        self._provenance = dict(provenance or {})
        squash = Squash(model.config.prompt_encoder_config.image_size, _MEAN, _STD)
        name = f"sam2 {self._provenance.get('weights', '')}"
        self._boxes = BoxSegmenter(model, squash, name=name, **options)

    def segment(
        self,
        images: Sequence[Image],
        boxes: Sequence[FloatArray],
        *,
        embeddings: Sequence[Embedding] | None = None,
    ) -> list[Masks]:
        """One :class:`rasa.Masks` per image, with the predicted intersection over union as scores.

        Args:
            images: B images.
            boxes: B float32 ``(N, 4)``, xyxy in pixels; N may be 0 and differs by image.
            embeddings: What :meth:`embed` gave for the same images; None computes it.

        Raises:
            InputError: If boxes are not finite or reversed, the masks would not fit into memory, or the
                embeddings are of other images.
            ContractError: If the model gives no number for a mask, as float16 may overflow.
        """
        return self._boxes.segment(images, boxes, embeddings)

    def embed(self, images: Sequence[Image]) -> list[Embedding]:
        """What the image encoder says of each image, to be passed back to :meth:`segment`."""
        return self._boxes.embed(images)

    def to(self, device: str) -> Sam2Segmenter:
        """Move the model to ``device``, in place; embeddings that were made before are of no use there.

        Raises:
            InputError: If torch knows no such device.
        """
        self._boxes.to(device)
        return self

    def describe(self) -> Mapping[str, Any]:
        """Family, options and dtype, and the provenance that was given."""
        return {"model": "sam2", **self._provenance, **self._boxes.describe()}
