"""Lines of text as coverage maps, in whatever script a tag is written.

supervision's label annotators draw with one font, and every letter that it lacks as the
same empty box. Here a text takes the first font that has all of its letters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rasa.arrays import ByteArray

_NO_CHARACTER = "\U0010fffe"  # Unicode promises never to assign it: what a font draws for it is its empty box
_PROBE = 24  # font size at which letters are compared with the empty box
_BASELINE, _HEIGHT = 0.98, 1.26  # of the font size; deep enough for g and tall enough for accents
_WEIGHT = 0.014  # stroke width, in shares of the font size, that makes the regular font semi-bold


def text_alpha(text: str, size: int) -> ByteArray:
    """Draw one line of text.

    Args:
        text: Line breaks become spaces and control characters vanish; a letter that no font here has
            becomes its code point, such as ``U+1F436``.
        size: Font size in pixels.

    Returns:
        Read-only uint8 ``(height, width)``, 0 where the paper shows and 255 under the ink. Lines of one
        size have one height and share a baseline.
    """
    letters = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())
    lacking = missing_letters(letters)
    letters = "".join(f"U+{ord(letter):04X}" if letter in lacking else letter for letter in letters)
    return (_renderer(letters) or _draw_default)(letters, size)


def missing_letters(text: str) -> frozenset[str]:
    """The letters of ``text`` that no font here draws as they should be; their code points are drawn instead."""
    letters = frozenset(letter for letter in text if letter.isprintable())
    if _renderer(text) is not None:
        return frozenset()
    # Marks join the letter before them, so they are lost along with it.
    lacking = frozenset(c for c in letters if unicodedata.category(c)[0] == "M" or _renderer(c) is None)
    # A mix of scripts, each of which some font draws, but no font all of them.
    return lacking or frozenset(c for c in letters if not _has(_draw_default, c))


def line_height(size: int) -> int:
    """Height in pixels of a line of font size ``size``."""
    return int(np.ceil(_HEIGHT * size))


def shorten(text: str, size: int, width: int) -> str:
    """``text``, cut to end in an ellipsis where it is wider than ``width`` pixels."""
    if text_alpha(text, size).shape[1] <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        fits = text_alpha(text[:middle].rstrip() + "…", size).shape[1] <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low].rstrip() + "…"


@lru_cache(maxsize=1024)
def _renderer(text: str) -> Callable[[str, int], ByteArray] | None:
    letters = {letter for letter in text if letter.isprintable()}
    if all(_has(_draw_default, letter) for letter in letters):
        return _draw_default
    if _wide_font_file() is not None and all(_has(_draw_wide, letter) for letter in letters):
        return _draw_wide
    # OpenCV 5 carries a font for Chinese, Japanese and Korean, but joins no letters and knows no right to left.
    simple = all(unicodedata.bidirectional(c) not in ("R", "AL") and unicodedata.category(c)[0] != "M" for c in letters)
    if hasattr(cv2, "FontFace") and simple and all(_has(_draw_opencv, letter) for letter in letters):
        return _draw_opencv
    return None


@lru_cache(maxsize=4096)
def _has(draw: Callable[[str, int], ByteArray], letter: str) -> bool:
    base = "a" if unicodedata.category(letter)[0] == "M" else ""
    missing = (draw(base + nothing, _PROBE) for nothing in (_NO_CHARACTER, "\ufffd"))
    return letter.isspace() or not any(np.array_equal(draw(base + letter, _PROBE), box) for box in missing)


@lru_cache(maxsize=64)
def _default_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


@lru_cache(maxsize=1)
def _wide_font_file() -> Path | None:
    # supervision requires Matplotlib, which ships DejaVu Sans: Greek, Cyrillic, Arabic, Hebrew and more.
    try:
        from matplotlib import get_data_path  # noqa: PLC0415  (optional, and only for rare scripts)
    except ImportError:
        return None
    path = Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return path if path.is_file() else None


@lru_cache(maxsize=64)
def _wide_font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_wide_font_file()), size)


@lru_cache(maxsize=128)
def _draw_default(text: str, size: int) -> ByteArray:
    return _draw_pillow(text, size, _default_font(size))


@lru_cache(maxsize=128)
def _draw_wide(text: str, size: int) -> ByteArray:
    return _draw_pillow(text, size, _wide_font(round(0.92 * size)))  # its letters are larger than the default's


def _draw_pillow(text: str, size: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> ByteArray:
    stroke = _WEIGHT * size
    width = int(np.ceil(font.getlength(text) + 2 * stroke)) if text else 0
    line = Image.new("L", (max(1, width), line_height(size)))
    ImageDraw.Draw(line).text((stroke, _BASELINE * size), text, font=font, fill=255, anchor="ls", stroke_width=stroke)
    return np.asarray(line)


@lru_cache(maxsize=128)
def _draw_opencv(text: str, size: int) -> ByteArray:
    face = cv2.FontFace("uni")
    canvas = np.zeros((line_height(size), size * (len(text) + 2), 3), np.uint8)
    end, canvas = cv2.putText(canvas, text, (0, round(_BASELINE * size)), (255, 255, 255), face, size, 500)
    alpha: ByteArray = canvas[:, : max(1, min(canvas.shape[1], end[0] + 1)), 0].copy()
    alpha.flags.writeable = False  # as it is shared by all who ask for this text
    return alpha
