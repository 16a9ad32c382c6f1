"""Images to tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rasa.protocols import Tagger
from rasa.stages._checks import answers_of, describe_model
from rasa.types import Image, Result, Tags


@dataclass(frozen=True)
class Tag:
    """Name what each image shows, with ``tagger``."""

    tagger: Tagger
    name: ClassVar[str] = "tag"
    provides: ClassVar[str] = "tags"

    def __call__(self, images: Sequence[Image], results: Sequence[Result]) -> list[Result]:
        """Results with the tags of their images.

        Raises:
            ContractError: If the tagger does not give one ``Tags`` per image.
        """
        tags = answers_of(self.tagger, self.tagger.tag(images), len(images), Tags)
        return [result.with_tags(found) for result, found in zip(results, tags, strict=True)]

    def describe(self) -> Mapping[str, Any]:
        """The tagger, as plain JSON values."""
        return describe_model(self.tagger)
