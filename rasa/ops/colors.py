"""One colour per tag, the same in every picture and process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

Color = tuple[int, int, int]

# 28 colours spread as far apart as can be in OKLab between lightness 0.60 and 0.86 and chroma 0.11 and 0.23:
# light enough for black text or dark enough for white, vivid enough to stand off a photo.
# The nearest two are 0.088 apart (farthest-point search, then single swaps).
# fmt: off
PALETTE: tuple[Color, ...] = (
    (24, 204, 222), (54, 144, 192), (0, 126, 252), (132, 180, 252), (132, 90, 252), (150, 132, 210),
    (210, 126, 252), (228, 180, 252), (186, 66, 210), (210, 138, 192), (252, 108, 198), (222, 42, 144),
    (186, 102, 132), (252, 66, 90), (252, 156, 156), (204, 90, 60), (228, 126, 12), (252, 198, 102),
    (192, 162, 0), (138, 132, 24), (198, 222, 0), (126, 204, 0), (144, 192, 120), (0, 180, 0),
    (18, 246, 120), (0, 210, 126), (72, 240, 198), (0, 156, 132),
)
# fmt: on
# Of 200,000 numbers tried, the one that keeps twenty common tags apart (tests/test_draw.py lists them).
_SALT = 38491


def tag_color(tag: str) -> Color:
    """The RGB colour of ``tag``, each channel 0 to 255; case and outer spaces make no difference.

    Example:
        >>> tag_color("dog"), tag_color("Dog ")
        ((252, 198, 102), (252, 198, 102))
    """
    digest = hashlib.sha256(f"{_SALT}:{' '.join(tag.casefold().split())}".encode("utf-8", "surrogatepass")).digest()
    return PALETTE[int.from_bytes(digest[:8], "big") % len(PALETTE)]


def text_color(background: Color) -> Color:
    """Black or white, whichever reads better on ``background``.

    White up to a luminance of 0.3, where its contrast ratio is still 3: the ratio alone
    would put black on purple and blue, where white is plainly easier to read.

    Source:
        Relative luminance: WCAG 2.1.
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (255, 255, 255) if luminance < 0.3 else (0, 0, 0)


def shade(color: Color, step: int) -> Color:
    """A lighter or darker relative of ``color``; step 0 is the colour itself."""
    amount = (0.0, 0.45, -0.4, 0.25, -0.2, 0.6, -0.55)[step % 7]
    end = 255 if amount > 0 else 0
    red, green, blue = (round(value + (end - value) * abs(amount)) for value in color)
    return red, green, blue


def distinct_colors(labels: Sequence[str]) -> list[Color]:
    """A colour for each of ``labels``: that of the tag, shaded where an earlier one has it already."""
    seen: dict[str, int] = {}
    colors = []
    for label in labels:
        colors.append(shade(tag_color(label), seen.get(label, 0)))
        seen[label] = seen.get(label, 0) + 1
    return colors
