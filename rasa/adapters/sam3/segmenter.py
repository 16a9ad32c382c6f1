"""Sam3Segmenter: masks from boxes by SAM 3's tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import Sam3TrackerModel

from rasa._torch.box_segmenter import BoxSegmenter, Embedding
from rasa._torch.squash import Squash
from rasa.arrays import FloatArray
from rasa.types import Image, Masks

# Sam3Processor of sam3: bytes are resized, so levels are whole, then [0, 1] becomes [-1, 1].
MEAN = STD = (0.5, 0.5, 0.5)


class Sam3Segmenter:
    """Gives every box the pixels of its object; a :class:`rasa.protocols.Segmenter`.

    Works as :class:`rasa.adapters.sam2.Sam2Segmenter` does, with the image encoder of SAM 3.

    Args:
        model: In evaluation mode, on its device and in its dtype.
        provenance: Plain JSON values that :meth:`describe` adds.
        options: ``multimask``, ``min_region``, ``max_mask_bytes``, ``batch_size`` and ``chunk`` of
            :class:`rasa._torch.box_segmenter.BoxSegmenter`.

    Raises:
        InputError: If the model is in training mode, or an option is out of range.
        DependencyError: If ``min_region`` is given and SciPy is not installed.

    Source:
        Carion et al., "SAM 3: Segment Anything with Concepts", arXiv:2511.16719.
    """

    def __init__(self, model: Sam3TrackerModel, *, provenance: Mapping[str, Any] | None = None, **options: Any) -> None:
        self._provenance = dict(provenance or {})
        squash = Squash(model.config.prompt_encoder_config.image_size, MEAN, STD, whole_levels=True)
        name = f"sam3 {self._provenance.get('weights', '')}"
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

    def to(self, device: str) -> Sam3Segmenter:
        """Move the model to ``device``, in place; embeddings that were made before are of no use there.

        Raises:
            InputError: If torch knows no such device.
        """
        self._boxes.to(device)
        return self

    def describe(self) -> Mapping[str, Any]:
        """Family, options and dtype, and the provenance that was given."""
        return {"model": "sam3-tracker", **self._provenance, **self._boxes.describe()}
