"""SAM 3: boxes and masks for tags in one go, and masks from boxes; from a folder of the model hub.

The weights are gated: Meta gives them to those who accept its licence, see :data:`rasa.adapters.sam3.folder.ACCESS`.
"""

from rasa.adapters.sam3.detector import Sam3
from rasa.adapters.sam3.loading import load_sam3, load_sam3_segmenter
from rasa.adapters.sam3.segmenter import Sam3Segmenter

__all__ = ["Sam3", "Sam3Segmenter", "load_sam3", "load_sam3_segmenter"]
