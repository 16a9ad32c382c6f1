"""Sam2Segmenter: masks from boxes by SAM 2.1."""

from __future__ import annotations

from typing import Any

from transformers import Sam2Model

from rasa._torch.box_segmenter import BoxSegmenter
from rasa._torch.sam2_network import Sam2Network
from rasa._torch.squash import Squash

# SAM2Transforms of sam2 1.1.0: it resizes floating-point images, so nothing is rounded.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Sam2Segmenter(BoxSegmenter):
    """Gives every box the pixels of its object; a :class:`rasa.protocols.Segmenter`.

    There is one mask per box by default, as the Grounded SAM 2 demo asks for: a box says well enough what is meant,
    and where the one mask is not stable the model's own best of three stands in for it.

    Args:
        model: In evaluation mode, on its device and in its dtype.
        options: Keywords of :class:`rasa._torch.box_segmenter.BoxSegmenter`, such as ``multimask``.

    Raises:
        InputError: If the model is in training mode, or an option is out of range.
        DependencyError: If ``min_region`` is given and SciPy is not installed.

    Source:
        Ravi et al., "SAM 2: Segment Anything in Images and Videos", arXiv:2408.00714; ``SAM2ImagePredictor``.
    """

    def __init__(self, model: Sam2Model, **options: Any) -> None:
        squash = Squash(model.config.prompt_encoder_config.image_size, _MEAN, _STD)
        super().__init__(Sam2Network(model), squash, facts={"model": "sam2"}, **options)
