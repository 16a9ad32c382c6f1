"""The colours of tags; they are in :mod:`rasa.ops.colors`, which formats without pictures share."""

from rasa.ops.colors import PALETTE, Color, shade, tag_color, text_color

__all__ = ["PALETTE", "Color", "shade", "tag_color", "text_color"]
