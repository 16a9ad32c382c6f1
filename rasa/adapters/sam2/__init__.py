"""SAM 2.1 on still images: masks from boxes, from the published files and from folders of the model hub."""

from rasa.adapters.sam2.loading import load_sam2, sam2_config
from rasa.adapters.sam2.segmenter import Sam2Segmenter

__all__ = ["Sam2Segmenter", "load_sam2", "sam2_config"]
