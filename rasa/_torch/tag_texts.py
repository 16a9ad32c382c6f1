"""What detectors share that read one text per tag and score boxes by text: OWLv2 and OmDet-Turbo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rasa.arrays import FloatArray
from rasa.errors import ContractError, InputError
from rasa.ops.boxes import clip_boxes
from rasa.types import Image, Instances


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """Choices of such a detector.

    Attributes:
        box_threshold: A box needs a score above it, in [0, 1].
        prompts: Some tags to what the model reads instead, one text or several; the best of them counts.
        template: Makes the text of a tag that has no prompt; ``{}`` stands for the tag.
        batch_size: Images at once.

    Raises:
        InputError: If a number is out of range, the template has not one ``{}``, or a tag has an empty list of prompts.
    """

    box_threshold: float
    prompts: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    template: str = "{}"
    batch_size: int = 4

    def __post_init__(self) -> None:
        if isinstance(self.box_threshold, bool) or not 0 <= self.box_threshold <= 1:
            raise InputError(f"box_threshold must be in [0, 1], got {self.box_threshold}")
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.template.count("{}") != 1:
            raise InputError(f'template must hold one "{{}}", which stands for the tag, got {self.template!r}')
        for tag, texts in self.prompts.items():
            if not texts:
                raise InputError(f"tag {tag!r} has no prompt; give it one, or leave it out of the prompts")

    def describe(self) -> dict[str, Any]:
        """What decides on the answers, as plain JSON values."""
        prompts = {tag: [text] if isinstance(text, str) else list(text) for tag, text in self.prompts.items()}
        return {"box_threshold": self.box_threshold, "template": self.template, "prompts": prompts}

    def texts_of(self, tags: Sequence[str]) -> TagTexts:
        """The texts of ``tags``, each once; one that two tags share belongs to the first of them."""
        owners: dict[str, int] = {}
        for position, tag in enumerate(tags):
            given = self.prompts.get(tag, self.template.replace("{}", tag))
            for text in (given,) if isinstance(given, str) else given:
                owners.setdefault(text, position)
        return TagTexts(tuple(tags), tuple(owners), tuple(owners.values()))


@dataclass(frozen=True, slots=True)
class TagTexts:
    """Tags as texts for the model; hashable.

    Attributes:
        tags: The tags asked for.
        texts: P distinct texts.
        owners: P positions in ``tags``.
    """

    tags: tuple[str, ...]
    texts: tuple[str, ...]
    owners: tuple[int, ...]


class TextIds:
    """Texts to token ids for a CLIP text encoder.

    Args:
        tokenizer: Of transformers.
        limit: Most tokens that the text encoder takes, those of start and end included.
    """

    def __init__(self, tokenizer: Any, limit: int) -> None:
        self._tokenizer, self.limit = tokenizer, limit

    def encode(self, text: str, *, tag: str) -> list[int]:
        """Ids with start and end.

        Raises:
            InputError: If there are more than the limit, none, or the text spells the mark of a text's end.
        """
        ids: list[int] = self._tokenizer(text, truncation=False)["input_ids"]
        of = f"tag {tag!r}" if text == tag else f"the text {text!r} of tag {tag!r}"
        if len(ids) > self.limit:
            raise InputError(f"{of} has {len(ids)} tokens, the model reads {self.limit}; give it a shorter prompt")
        if len(ids) <= 2 or ids[-1] in ids[:-1]:
            raise InputError(f"{of} has no words, or a mark that ends a text; give it a prompt of words")
        return ids

    def plain(self, text: str) -> list[int]:
        """Ids without start and end."""
        ids: list[int] = self._tokenizer(text, truncation=False)["input_ids"]
        return ids[1:-1]

    def ids_of(self, asked: TagTexts) -> list[list[int]]:
        """Ids of all texts of some tags; errors as of :meth:`encode`."""
        pairs = zip(asked.texts, asked.owners, strict=True)
        return [self.encode(text, tag=asked.tags[owner]) for text, owner in pairs]


def chosen_instances(
    scores: FloatArray, boxes: FloatArray, asked: TagTexts, *, image: Image, threshold: float
) -> Instances:
    """Give every box the tag of its best text, and keep the sure ones, best first.

    Args:
        scores: ``(Q, P)``, after the sigmoid.
        boxes: ``(Q, 4)``, centre, width and height in pixels of the image.
        asked: P texts.
        image: For its size and name.
        threshold: A box needs a score above it.

    Raises:
        ContractError: If a score or a box is no finite number, as float16 may overflow.
    """
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        cure = "use bfloat16 or float32 if it runs in float16, else check its weights"
        raise ContractError(f"the model gave a number that is not finite on {image.name!r}; {cure}")
    best = scores.argmax(axis=1)
    top = scores[np.arange(len(best)), best]
    order = np.argsort(-top, kind="stable")
    order = order[top[order] > np.float32(threshold)]
    half = boxes[order, 2:] / 2
    corners = np.concatenate([boxes[order, :2] - half, boxes[order, :2] + half], axis=1)
    labels = tuple(asked.tags[asked.owners[best[i]]] for i in order)
    return Instances(clip_boxes(corners.astype(np.float32), image.size), top[order], labels)


def batches_of_like(asked: Sequence[TagTexts], batch_size: int) -> Iterator[tuple[TagTexts, list[int]]]:
    """Positions of images that are asked for the same tags, ``batch_size`` at once; those without tags are left out."""
    groups: dict[TagTexts, list[int]] = {}
    for position, texts in enumerate(asked):
        if texts.texts:
            groups.setdefault(texts, []).append(position)
    for texts, positions in groups.items():
        for start in range(0, len(positions), batch_size):
            yield texts, positions[start : start + batch_size]


def check_lists(images: Sequence[Image], tags: Sequence[Sequence[str]]) -> None:
    """Raise InputError unless there is one list of tags per image."""
    if len(images) != len(tags):
        raise InputError(f"got {len(tags)} lists of tags for {len(images)} images; pass one list per image")
    for image, names in zip(images, tags, strict=True):
        if isinstance(names, str):
            raise InputError(
                f"tags of {image.name!r} must be a list, got the single string {names!r}; pass [{names!r}]"
            )
