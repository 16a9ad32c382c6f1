"""Masks as one label map: which instance each pixel belongs to."""

from __future__ import annotations

import numpy as np
import PIL.Image

from rasa.errors import InputError
from rasa.ops.colors import distinct_colors
from rasa.ops.label_maps import label_map
from rasa.types import Result


def mask_map(result: Result) -> PIL.Image.Image:
    """The masks of ``result`` in one image, to be saved as PNG.

    The value of a pixel is the position of its instance, counted from 1; 0 is background. Where
    masks overlap, the smaller one lies in front.

    Returns:
        Up to 255 instances: mode ``P``, whose palette holds the colours of the tags, shaded so that
        instances of one tag differ. More: mode ``I;16``, 16-bit grey without a palette.

    Raises:
        InputError: If the result failed, has instances without masks, or more than 65535 of them.
    """
    found = result.instances
    if 0 in result.size:
        raise InputError(f"result {result.name!r} has no picture: its size is {tuple(result.size)}")
    if found.masks is None and len(found):
        raise InputError(f"result {result.name!r} has {len(found)} instances but no masks; run a segmenter first")
    if len(found) > 65535:
        raise InputError(f"result {result.name!r} has {len(found)} instances; a label map holds at most 65535")
    masks = np.zeros((0, *result.size), np.bool_) if found.masks is None else found.masks
    values = label_map(masks)
    image = PIL.Image.fromarray(values)
    if values.dtype == np.uint8:
        image.putpalette([channel for color in [(0, 0, 0), *distinct_colors(found.labels)] for channel in color])
    return image
