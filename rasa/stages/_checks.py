"""What stages check of the models they drive, and of their own numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Search:
    """What a stage does that finds the objects of tags: ask, check the answers, and put them into results.

    Attributes:
        model: Whom errors name.
        ask: Of the model: images and the tags of each to one ``Instances`` per image.
        objects_only: Whether scene, action and attribute tags are left out.
        masks: Whether the answers must have masks.
    """

    model: object
    ask: Callable[[Sequence[Image], Sequence[Sequence[str]]], Sequence[Instances]]
    objects_only: bool
    masks: bool = False

    def __call__(self, images: Sequence[Image], results: Sequence[Result]) -> list[Result]:
        """Results with the instances of their images, boxes cut to the image.

        Raises:
            ContractError: If there is not one ``Instances`` per image, one lacks its masks, or a label is none of the
                tags asked for.
        """
        asked = [result.tags.objects if self.objects_only else result.tags.names for result in results]
        found = answers_of(self.model, self.ask(images, asked), len(images), Instances)
        name = type(self.model).__name__
        if self.masks and any(instances.masks is None for instances in found):
            raise ContractError(f"{name} must give masks with its boxes, also for no boxes")
        for instances, tags in zip(found, asked, strict=True):
            if strays := set(instances.labels) - set(tags):
                raise ContractError(f"{name} gave the label {min(strays)!r}, which is none of the tags asked for")
        return [
            result.with_instances(replace(instances, boxes=clip_boxes(instances.boxes, image.size)))
            for image, result, instances in zip(images, results, found, strict=True)
        ]

    def describe(self) -> Mapping[str, Any]:
        """The model, and which tags it is asked for, as plain JSON values."""
        return {**describe_model(self.model), "objects_only": self.objects_only}


def describe_model(model: object) -> Mapping[str, Any]:
    """What ``model`` says of itself, or at least its class."""
    if isinstance(model, Described):
        return model.describe()
    return {"model": f"{type(model).__module__}.{type(model).__qualname__}"}


def check_unit(name: str, value: float) -> None:
    """Raise InputError unless ``value`` is a number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{name} must be a number in [0, 1], got {value!r}")
