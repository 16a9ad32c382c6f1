"""Grounding DINO: boxes for any tags; original checkpoints and those of the model hub."""

from rasa.adapters.grounding_dino.detector import GroundingDino
from rasa.adapters.grounding_dino.loading import (
    build_base,
    build_swin_b,
    build_swin_t,
    build_tiny,
    load_grounding_dino,
    load_network,
)
from rasa.adapters.grounding_dino.network import GroundingDinoNetwork
from rasa.adapters.grounding_dino.text import BertTokenizer

__all__ = [
    "BertTokenizer",
    "GroundingDino",
    "GroundingDinoNetwork",
    "build_base",
    "build_swin_b",
    "build_swin_t",
    "build_tiny",
    "load_grounding_dino",
    "load_network",
]
