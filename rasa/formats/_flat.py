"""Objects of an image laid into one map, with a count of what that hides."""

from __future__ import annotations

import numpy as np

from rasa.arrays import BoolArray, IntArray
from rasa.errors import InputError
from rasa.formats.samples import Sample, WriteReport
from rasa.ops.label_maps import LabelMap, label_map, visible_areas
from rasa.ops.masks import mask_areas


def flatten(sample: Sample, report: WriteReport, *, groups: IntArray | None = None) -> tuple[LabelMap, IntArray]:
    """Lay the masks over one another: smaller ones in front, of equal ones that with the higher mask score.

    Args:
        sample: To be written.
        report: Counts what is hidden, and notes how well each mask is kept.
        groups: ``(N,)``, N objects of the same group are one area and hide nothing of one another; None for each
            object by itself.

    Returns:
        ``(H, W)`` position of the object counted from 1, 0 for none; and int64 ``(N,)`` its pixels in it.

    Raises:
        InputError: If there are more than 65535 objects.
    """
    found = sample.result.instances
    masks = np.zeros((0, *sample.result.size), np.bool_) if found.masks is None else found.masks
    if found.masks is None:
        report.lose("objects without a mask", len(found))
    if len(masks) > 65535:
        raise InputError(f"{sample.result.name!r} has {len(masks)} objects; a label map holds at most 65535")
    values = label_map(masks, scores=found.mask_scores)
    visible = visible_areas(values, len(masks))
    report.lose("objects hidden by others", int(((mask_areas(masks) > 0) & (visible == 0)).sum()))
    group_of = np.arange(len(masks)) if groups is None else groups[: len(masks)]
    for group in np.unique(group_of):
        members = np.flatnonzero(group_of == group)
        area = _union_area(masks, members)
        report.lose("pixels of masks hidden by others", area - int(visible[members].sum()))
        if area:
            kept = float(visible[members].sum() / area)
            report.note_iou(kept, image=sample.result.name, label=found.labels[members[0]])
    return values, visible


def _union_area(masks: BoolArray, members: IntArray) -> int:
    if len(members) == 1:
        return int(np.count_nonzero(masks[members[0]]))
    union = np.zeros(masks.shape[1:], np.bool_)
    for i in members:
        union |= masks[i]
    return int(np.count_nonzero(union))
