"""Sam3Segmenter: masks from boxes by SAM 3's tracker."""

from __future__ import annotations

from typing import Any

from transformers import Sam3TrackerModel

from rasa._torch.box_segmenter import BoxSegmenter
from rasa._torch.sam2_network import Sam2Network
from rasa._torch.squash import Squash

# Sam3Processor of sam3: bytes are resized, so levels are whole, then [0, 1] becomes [-1, 1].
MEAN = STD = (0.5, 0.5, 0.5)


class Sam3Segmenter(BoxSegmenter):
    """Gives every box the pixels of its object; a :class:`rasa.protocols.Segmenter`.

    Works as :class:`rasa.adapters.sam2.Sam2Segmenter` does, with the image encoder of SAM 3.

    Args:
        model: In evaluation mode, on its device and in its dtype.
        options: Keywords of :class:`rasa._torch.box_segmenter.BoxSegmenter`, such as ``multimask``.

    Raises:
        InputError: If the model is in training mode, or an option is out of range.
        DependencyError: If ``min_region`` is given and SciPy is not installed.

    Source:
        Carion et al., "SAM 3: Segment Anything with Concepts", arXiv:2511.16719.
    """

    def __init__(self, model: Sam3TrackerModel, **options: Any) -> None:
        squash = Squash(model.config.prompt_encoder_config.image_size, MEAN, STD, whole_levels=True)
        super().__init__(Sam2Network(model), squash, facts={"model": "sam3-tracker"}, **options)
