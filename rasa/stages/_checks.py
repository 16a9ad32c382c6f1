"""What stages check of the models they drive, and of their own numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from rasa.errors import ContractError, InputError
from rasa.ops.boxes import clip_boxes
from rasa.protocols import Described
from rasa.types import Image, Instances, Result

T = TypeVar("T")


def answers_of(model: object, answers: Sequence[T], expected: int, kind: type[T]) -> Sequence[T]:
    """Return ``answers`` after checking that there is one of ``kind`` per image.

    Raises:
        ContractError: If the number or the type differs.
    """
    name = type(model).__name__
    if len(answers) != expected:
        raise ContractError(f"{name} gave {len(answers)} answers for {expected} images")
    for answer in answers:
        if not isinstance(answer, kind):
            raise ContractError(f"{name} must answer with rasa.{kind.__name__}, got {type(answer).__name__}")
    return answers


def asked_tags(results: Sequence[Result], *, objects_only: bool) -> list[tuple[str, ...]]:
    """Per image, the tags that its boxes are looked for."""
    return [result.tags.objects if objects_only else result.tags.names for result in results]


def checked_instances(model: object, found: Instances, *, image: Image, tags: Sequence[str]) -> Instances:
    """Return ``found`` with its boxes cut to the image, after checking its labels.

    Raises:
        ContractError: If a label is none of the tags asked for.
    """
    strays = set(found.labels) - set(tags)
    if strays:
        label = sorted(strays)[0]
        raise ContractError(f"{type(model).__name__} gave the label {label!r}, which is none of the tags asked for")
    return replace(found, boxes=clip_boxes(found.boxes, image.size))


def describe_model(model: object) -> Mapping[str, Any]:
    """What ``model`` says of itself, or at least its class."""
    if isinstance(model, Described):
        return model.describe()
    return {"model": f"{type(model).__module__}.{type(model).__qualname__}"}


def check_unit(name: str, value: float) -> None:
    """Raise InputError unless ``value`` is a number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{name} must be a number in [0, 1], got {value!r}")
