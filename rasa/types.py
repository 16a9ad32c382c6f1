"""The values that travel between models: images in, tags, instances and results out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from rasa.arrays import BoolArray, ByteArray, FloatArray, IntArray, read_only
from rasa.errors import DependencyError, FormatError, InputError
from rasa.ops.rle import mask_to_rle, rle_to_mask

if TYPE_CHECKING:
    import supervision

SCHEMA = "rasa.result/1"

# What a tag can be of a photo; an object alone has a box.
KINDS = ("object", "scene", "action", "attribute")


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Image:
    """One decoded picture.

    Attributes:
        pixels: uint8 ``(H, W, 3)``, RGB, EXIF orientation applied, H and W at least 1.
        name: What errors and results call it: the path, or ``"image"`` for an array.

    Raises:
        InputError: If ``pixels`` is not such an array.
    """

    pixels: ByteArray
    name: str = "image"

    def __post_init__(self) -> None:
        hint = "pass RGB pixels as (height, width, 3); rasa.to_image converts other layouts"
        pixels = np.asarray(self.pixels)
        if pixels.dtype != np.uint8:
            raise InputError(f"image {self.name!r} must be uint8, got {pixels.dtype}; {hint}")
        pixels = read_only(f"image {self.name!r}", pixels, dtype=np.uint8, shape=(None, None, 3), hint=hint)
        if pixels.size == 0:
            raise InputError(f"image {self.name!r} has no pixels: shape {pixels.shape}")
        object.__setattr__(self, "pixels", pixels)

    @property
    def size(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class Tags:
    """What an image shows, as parallel columns, best score first as the tagger gave them.

    Attributes:
        names: T distinct tags.
        scores: float32 ``(T,)`` in [0, 1].
        ids: int64 ``(T,)``, positions in the tagger's vocabulary; None where it has none.
        kinds: T of :data:`KINDS`, or ``""`` where that is not known; None where nothing is known.

    Raises:
        InputError: If the lengths differ, a name repeats or is empty, a score is outside [0, 1], or a kind is none.
    """

    names: tuple[str, ...] = ()
    scores: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    ids: IntArray | None = None
    kinds: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        count = len(_check_names("tags", self, "names"))
        if len(set(self.names)) != count:
            repeated = sorted({name for name in self.names if self.names.count(name) > 1})
            raise InputError(f"tags must be distinct, got {', '.join(map(repr, repeated))} more than once")
        _check_scores("tag scores", self, "scores", count)
        if self.ids is not None:
            object.__setattr__(self, "ids", read_only("tag ids", self.ids, dtype=np.int64, shape=(count,)))
        if self.kinds is not None:
            object.__setattr__(self, "kinds", _checked_kinds(self.kinds, count))

    @classmethod
    def of(cls, names: Iterable[str]) -> Tags:
        """Tags that somebody states: every score is 1."""
        names = tuple(dict.fromkeys(names))
        return cls(names, np.ones(len(names), np.float32))

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the tags that can have a box: those of the kind object, or of no known kind."""
        kinds = self.kinds or ("",) * len(self)
        return tuple(name for name, kind in zip(self.names, kinds, strict=True) if kind in {"object", ""})

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """What a segmenter answers for the boxes of one image.

    Attributes:
        masks: bool ``(N, H, W)`` at the size of the image, one per box, in the order of the boxes.
        scores: float32 ``(N,)`` in [0, 1], the segmenter's own estimate; None where it has none.

    Raises:
        InputError: If the lengths differ or an array has a wrong shape.
    """

    masks: BoolArray
    scores: FloatArray | None = None

    def __post_init__(self) -> None:
        masks = read_only("masks", self.masks, dtype=np.bool_, shape=(None, None, None))
        object.__setattr__(self, "masks", masks)
        if self.scores is not None:
            _check_scores("mask scores", self, "scores", len(masks))

    def __len__(self) -> int:
        return len(self.masks)


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """Objects found in one image, as parallel arrays; entry i of each is one object.

    Attributes:
        boxes: float32 ``(N, 4)``, xyxy in pixels of the original image, ``x1 <= x2`` and ``y1 <= y2``.
        scores: float32 ``(N,)`` in [0, 1], the detector's.
        labels: N tags, each one of those the detector was asked for.
        masks: bool ``(N, H, W)`` at the size of the image; None before segmentation.
        mask_scores: float32 ``(N,)`` in [0, 1], the segmenter's; None where it gave none.

    Raises:
        InputError: If the lengths differ, an array has a wrong shape, or a box is
            not finite or reversed.
    """

    boxes: FloatArray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scores: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    labels: tuple[str, ...] = ()
    masks: BoolArray | None = None
    mask_scores: FloatArray | None = None

    def __post_init__(self) -> None:
        count = len(_check_names("labels", self, "labels"))
        hint = "pass one xyxy row per label"
        boxes = read_only("boxes", self.boxes, dtype=np.float32, shape=(count, 4), hint=hint)
        if not np.isfinite(boxes).all():
            raise InputError("boxes must be finite numbers of pixels, got NaN or infinity")
        if (boxes[:, 2:] < boxes[:, :2]).any():
            raise InputError("boxes must be xyxy with x1 <= x2 and y1 <= y2, got a reversed one")
        object.__setattr__(self, "boxes", boxes)
        _check_scores("scores", self, "scores", count)
        if self.masks is not None:
            masks = read_only("masks", self.masks, dtype=np.bool_, shape=(count, None, None))
            object.__setattr__(self, "masks", masks)
        if self.mask_scores is not None:
            if self.masks is None:
                raise InputError("mask_scores without masks; pass both or neither")
            _check_scores("mask scores", self, "mask_scores", count)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: ArrayLike) -> Instances:
        """The instances at ``index``, in that order.

        Args:
            index: Positions, or a bool ``(N,)`` selection.
        """
        given = np.asarray(index)
        # An empty list has no type of its own; NumPy calls it float64.
        chosen = np.arange(len(self))[given if given.size or given.dtype == np.bool_ else given.astype(np.int64)]
        return Instances(
            boxes=self.boxes[chosen],
            scores=self.scores[chosen],
            labels=tuple(self.labels[i] for i in chosen),
            masks=None if self.masks is None else self.masks[chosen],
            mask_scores=None if self.mask_scores is None else self.mask_scores[chosen],
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an image has no result.

    Attributes:
        stage: Where it happened: ``"decode"`` or the name of a stage.
        kind: Name of the error's class, such as ``"ImageError"``.
        message: The error's text.
    """

    stage: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """All that a pipeline found out about one image.

    Attributes:
        name: Name of the image.
        size: ``(height, width)`` in pixels; ``(0, 0)`` if it could not be read.
        tags: Tags of the whole image.
        instances: Objects with boxes, and masks once a segmenter has run.
        timings: Seconds spent on this image by stage, in running order; a batch's
            time is shared out evenly among its images.
        provenance: What produced the result: versions, and per stage its models with
            hashes and its thresholds. Plain JSON values.
        failure: Why there is no result; None if all went well.

    Raises:
        InputError: If masks do not have the size of the image.
    """

    name: str
    size: tuple[int, int]
    tags: Tags = field(default_factory=Tags)
    instances: Instances = field(default_factory=Instances)
    timings: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None

    def __post_init__(self) -> None:
        masks = self.instances.masks
        if masks is not None and masks.shape[1:] != tuple(self.size):
            raise InputError(
                f"masks of {self.name!r} must have the size of the image, {tuple(self.size)}, got {masks.shape[1:]}"
            )

    @property
    def ok(self) -> bool:
        """Whether the image was processed without a failure."""
        return self.failure is None

    def with_tags(self, tags: Tags) -> Result:
        """The same result with ``tags`` in place of its own."""
        return replace(self, tags=tags)

    def with_instances(self, instances: Instances) -> Result:
        """The same result with ``instances`` in place of its own."""
        return replace(self, instances=instances)

    def with_masks(self, masks: Masks) -> Result:
        """The same result with one mask per instance.

        Raises:
            InputError: If the number or the size of the masks does not fit.
        """
        if len(masks) != len(self.instances):
            raise InputError(f"{self.name!r} has {len(self.instances)} instances but got {len(masks)} masks")
        instances = replace(self.instances, masks=masks.masks, mask_scores=masks.scores)
        return replace(self, instances=instances)

    @property
    def detections(self) -> supervision.Detections:
        """The instances as ``supervision.Detections``.

        ``xyxy`` float32 pixels, ``confidence`` the detector's scores, ``class_id`` the position
        of the label among the result's distinct labels in order of appearance,
        ``data["class_name"]`` the labels, ``data["mask_score"]`` where there are any.

        Raises:
            DependencyError: If supervision is not installed.
        """
        try:
            import supervision  # noqa: PLC0415  (a heavy optional package)
        except ImportError as error:
            raise DependencyError('Result.detections needs "supervision"; install the extra "lite"') from error
        found = self.instances
        known = {label: i for i, label in enumerate(dict.fromkeys(found.labels))}
        data: dict[str, Any] = {"class_name": np.array(found.labels, dtype=np.str_)}
        if found.mask_scores is not None:
            data["mask_score"] = found.mask_scores.copy()
        return supervision.Detections(
            xyxy=found.boxes.copy(),
            mask=None if found.masks is None else found.masks.copy(),
            confidence=found.scores.copy(),
            class_id=np.array([known[label] for label in found.labels], dtype=int),
            data=data,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values that :meth:`from_dict` turns back without loss; masks as COCO RLE."""
        found = self.instances
        return {
            "schema": SCHEMA,
            "name": self.name,
            "size": list(self.size),
            "tags": {
                "names": list(self.tags.names),
                "scores": _floats(self.tags.scores),
                "ids": None if self.tags.ids is None else self.tags.ids.tolist(),
                "kinds": None if self.tags.kinds is None else list(self.tags.kinds),
            },
            "instances": {
                "boxes": _floats(found.boxes),
                "scores": _floats(found.scores),
                "labels": list(found.labels),
                "masks": None if found.masks is None else [mask_to_rle(mask) for mask in found.masks],
                "mask_scores": None if found.mask_scores is None else _floats(found.mask_scores),
            },
            "timings": dict(self.timings),
            "provenance": dict(self.provenance),
            "failure": None
            if self.failure is None
            else {"stage": self.failure.stage, "kind": self.failure.kind, "message": self.failure.message},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """Read what :meth:`to_dict` wrote.

        Raises:
            FormatError: If a field is missing or malformed; nothing of ``data`` is trusted.
        """
        schema = data.get("schema") if isinstance(data, Mapping) else None
        if schema != SCHEMA:
            raise FormatError(f"not a rasa result: schema is {schema!r}, expected {SCHEMA!r}")
        try:
            return _result_from(data)
        except FormatError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise FormatError(f"malformed rasa result: {type(error).__name__}: {error}") from error

    def to_json(self) -> str:
        """One line of JSON; see :meth:`to_dict`."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Result:
        """Read one line of :meth:`to_json`.

        Raises:
            FormatError: If the text is no JSON or no result.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"not a rasa result: no valid JSON ({error})") from error
        return cls.from_dict(data)


def _check_names(what: str, owner: object, attribute: str) -> tuple[str, ...]:
    given = getattr(owner, attribute)
    if isinstance(given, str):
        raise InputError(f"{what} must be a sequence of strings, got the single string {given!r}")
    names = tuple(given)
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{what} must be non-empty strings, got {name!r}")
    object.__setattr__(owner, attribute, names)
    return names


def _checked_kinds(kinds: Sequence[str], count: int) -> tuple[str, ...]:
    if isinstance(kinds, str) or len(kinds) != count:
        raise InputError(f"tag kinds must be {count} strings, one per tag, got {kinds!r}")
    for kind in kinds:
        if (kind and kind not in KINDS) or not isinstance(kind, str):
            raise InputError(f'tag kinds must be of {", ".join(KINDS)}, or "" if not known, got {kind!r}')
    return tuple(kinds)


def _check_scores(what: str, owner: object, attribute: str, count: int) -> None:
    scores = read_only(what, getattr(owner, attribute), dtype=np.float32, shape=(count,))
    # Written so that NaN fails too.
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InputError(f"{what} must be in [0, 1], got values from {scores.min()} to {scores.max()}")
    object.__setattr__(owner, attribute, scores)


def _floats(array: FloatArray) -> list[Any]:
    # float32 -> float64 -> shortest decimal -> float64 -> float32 is exact.
    return list(array.astype(np.float64).tolist())


def _result_from(data: Mapping[str, Any]) -> Result:
    height, width = (int(length) for length in data["size"])
    tags, found, failure = data["tags"], data["instances"], data["failure"]
    rles: Sequence[Any] | None = found["masks"]
    masks = None
    if rles is not None:
        for rle in rles:
            if list(rle["size"]) != [height, width]:
                raise FormatError(f"mask of size {rle['size']} in an image of size {[height, width]}")
        masks = np.zeros((len(rles), height, width), np.bool_)
        for i, rle in enumerate(rles):
            masks[i] = rle_to_mask(rle)
    return Result(
        name=str(data["name"]),
        size=(height, width),
        # Results that were written before tags had kinds have no such key.
        tags=Tags(tuple(tags["names"]), np.array(tags["scores"], np.float32), tags["ids"], tags.get("kinds")),
        instances=Instances(
            boxes=np.array(found["boxes"], np.float32).reshape(-1, 4),
            scores=np.array(found["scores"], np.float32),
            labels=tuple(found["labels"]),
            masks=masks,
            mask_scores=None if found["mask_scores"] is None else np.array(found["mask_scores"], np.float32),
        ),
        timings={str(stage): float(seconds) for stage, seconds in data["timings"].items()},
        provenance=dict(data["provenance"]),
        failure=None if failure is None else Failure(**failure),
    )
