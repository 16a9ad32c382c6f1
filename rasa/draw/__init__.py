"""Pictures of results: annotated photos, side by side with the original, and masks as label maps.

The overlays are supervision's; what it lacks is here: labels that never overlap, letters of
every script, a legend, anti-aliased outlines, and one colour per tag everywhere.
"""

from rasa.errors import DependencyError

try:
    import cv2  # noqa: F401
    import supervision  # noqa: F401
except ImportError as error:
    raise DependencyError(f'rasa.draw needs "{error.name}"; install the extra "lite"') from error

from rasa.draw.colors import PALETTE, tag_color
from rasa.draw.labels import place_labels
from rasa.draw.maps import mask_map
from rasa.draw.picture import annotate, side_by_side

__all__ = ["PALETTE", "annotate", "mask_map", "place_labels", "side_by_side", "tag_color"]
