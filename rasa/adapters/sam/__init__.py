"""Segment Anything (SAM) and SAM-HQ: masks from boxes, on ``segment-anything`` or transformers."""

from rasa.adapters.sam.loading import load_sam
from rasa.adapters.sam.segmenter import Embedding, SamSegmenter

__all__ = ["Embedding", "SamSegmenter", "load_sam"]
