"""From an image to what the student sees and what the teacher sees, with all chance from one generator.

The published fine-tuning crops, flips and changes the picture twice, independently, for the 384-pixel student and the
224-pixel CLIP teacher, so that the teacher describes another part of the picture than the student sees. Here both get
the same crop, flip and changes unless ``crops="independent"`` is asked for.

"The same" is made by parameters, not by shrinking the student's picture: the crop is resampled from the original once
for each size, and the drawn operations are applied to both, their geometry in units of the side and their tables of
values as found for the student. Shrinking the student's picture would blur the teacher's twice, or enlarge and shrink
again what was cropped small, which CLIP never saw. Where both have one size, the pixels are shared.

Chance is drawn here and not by torchvision's transforms, which draw from torch's global state; the crop follows
``torchvision.transforms.RandomResizedCrop``, whose interpolation of PIL pictures is Pillow's, too.

>>> view = training_view(Image(np.zeros((40, 60, 3), np.uint8)), Views(size=32), np.random.default_rng(0))
>>> view.pixels.shape
(3, 32, 32)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import PIL.Image

from rasa.arrays import FloatArray
from rasa.errors import InputError
from rasa.types import Image
from rasa_ram.data.augment_operations import MAX_MAGNITUDE, apply_change, draw_operations, to_change
from rasa_ram.preprocess import INFERENCE, ORIGINAL_TRAINING, Normalisation, preprocess

NORMALISATIONS: dict[str, Normalisation] = {"imagenet": INFERENCE, "clip": ORIGINAL_TRAINING}

_CROP_TRIES = 10  # as torchvision


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """How images become views; the defaults are the published pre-training, save the normalisation.

    Attributes:
        size: S, side of the student's view in pixels.
        teacher_size: R, side of the teacher's view in pixels, 224 for CLIP; None where there is no teacher.
        augment: Whether to crop, flip and change at random; if not, the view is that of ``rasa_ram.preprocess``.
        crops: ``"same"`` crop, flip and changes for student and teacher, or ``"independent"`` ones as published.
        scale: Least and largest share of the picture's area that a crop covers, in (0, 1].
        ratio: Least and largest width / height of a crop, drawn evenly on a logarithmic scale.
        flip: Probability of a horizontal flip.
        operations: Operations of RandAugment to draw, each applied with probability 1/2; 0 for none.
        magnitude: Strength of the operations, in [0, 10].
        normalisation: Of the student's view: ``"imagenet"``, with which the models are run, or ``"clip"``, with
            which the published ones were trained. The teacher's is always CLIP's.

    Raises:
        InputError: If a value is out of its range.
    """

    size: int = 224
    teacher_size: int | None = None
    augment: bool = True
    crops: Literal["same", "independent"] = "same"
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    operations: int = 2
    magnitude: float = 5.0
    normalisation: Literal["imagenet", "clip"] = "imagenet"

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("operations", 0), ("teacher_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        for name, highest in (("scale", 1.0), ("ratio", math.inf)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= highest:
                raise InputError(f"{name} must be two numbers in (0, {highest}], the lesser first, got {(low, high)}")
        for name, highest in (("flip", 1.0), ("magnitude", MAX_MAGNITUDE)):
            if not 0 <= getattr(self, name) <= highest:
                raise InputError(f"{name} must be in [0, {highest:g}], got {getattr(self, name)}")
        for name, known in (("crops", ("same", "independent")), ("normalisation", tuple(NORMALISATIONS))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One image as the networks get it.

    Attributes:
        pixels: float32 ``(3, S, S)``, normalised, for the student.
        teacher_pixels: float32 ``(3, R, R)``, normalised as CLIP wants it; None where there is no teacher.
    """

    pixels: FloatArray
    teacher_pixels: FloatArray | None = None


def make_view(image: Image, views: Views, rng: np.random.Generator) -> View:
    """The training view, or where ``views.augment`` is off the evaluation view, which draws nothing from ``rng``."""
    return training_view(image, views, rng) if views.augment else evaluation_view(image, views)


def evaluation_view(image: Image, views: Views) -> View:
    """The whole picture as a square, as ``rasa_ram.preprocess`` makes it for inference."""
    pixels = preprocess([image], views.size, normalisation=NORMALISATIONS[views.normalisation])[0]
    if views.teacher_size is None:
        return View(pixels)
    return View(pixels, preprocess([image], views.teacher_size, normalisation=ORIGINAL_TRAINING)[0])


def training_view(image: Image, views: Views, rng: np.random.Generator) -> View:
    """A random crop, flip and change of an image.

    Args:
        image: An image of any size.
        views: What to do.
        rng: Source of all randomness; the same state gives the same view.
    """
    source = PIL.Image.fromarray(image.pixels)
    sizes = [views.size] if views.teacher_size is None else [views.size, views.teacher_size]
    if len(sizes) == 2 and views.crops == "independent":
        pictures = [_draw(source, [size], views, rng)[0] for size in sizes]
    else:
        pictures = _draw(source, sizes, views, rng)
    student = _normalise(pictures[0], NORMALISATIONS[views.normalisation])
    return View(student, _normalise(pictures[1], ORIGINAL_TRAINING) if len(sizes) == 2 else None)


def draw_crop(rng: np.random.Generator, size: tuple[int, int], views: Views) -> tuple[int, int, int, int]:
    """Draw a crop as ``torchvision.transforms.RandomResizedCrop`` does.

    Args:
        rng: Source of all randomness.
        size: ``(height, width)`` of the image.
        views: Gives scale and ratio.

    Returns:
        ``(left, top, right, bottom)``, whole pixels.
    """
    height, width = size
    low, high = math.log(views.ratio[0]), math.log(views.ratio[1])
    for _ in range(_CROP_TRIES):
        area, aspect = height * width * rng.uniform(*views.scale), math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return left, top, left + w, top + h
    return _middle_crop(size, views.ratio)


def _middle_crop(size: tuple[int, int], ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """The largest crop of an allowed shape, from the middle: what is left for very long pictures."""
    height, width = size
    w = min(width, max(1, round(height * ratio[1])))
    h = min(height, max(1, round(width / ratio[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _draw(source: PIL.Image.Image, sizes: list[int], views: Views, rng: np.random.Generator) -> list[PIL.Image.Image]:
    """One random crop, flip and change of ``source`` at each of ``sizes``; the first decides the value tables."""
    # Cut out first: a resampling of the whole within a box would look at the pixels beside it.
    crop = source.crop(draw_crop(rng, (source.height, source.width), views))
    if rng.random() < views.flip:
        crop = crop.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    pictures = {size: crop.resize((size, size), PIL.Image.Resampling.BICUBIC) for size in sizes}
    for name, amount in draw_operations(rng, views.operations, views.magnitude):
        change = to_change(name, amount, pictures[sizes[0]])
        if change is not None:
            pictures = {size: apply_change(picture, change) for size, picture in pictures.items()}
    return [pictures[size] for size in sizes]


def _normalise(picture: PIL.Image.Image, normalisation: Normalisation) -> FloatArray:
    return preprocess([Image(np.asarray(picture))], picture.width, normalisation=normalisation)[0]
