"""GroundingDino: boxes for any tags, each box with exactly one of the tags that were asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rasa._torch.loading import torch_device
from rasa.adapters.grounding_dino.features import ImageFeatures, TextFeatures
from rasa.adapters.grounding_dino.network import GroundingDinoNetwork
from rasa.adapters.grounding_dino.preprocess import PUBLISHED_LIMITS, Limits, preprocess, resized_size
from rasa.adapters.grounding_dino.text import BertTokenizer, Prompts
from rasa.arrays import FloatArray
from rasa.errors import ContractError, InputError
from rasa.ops.boxes import clip_boxes
from rasa.ops.phrases import Caption, assign, score_method
from rasa.types import Image, Instances

# Of the RAM and Grounding DINO demo (recognize-anything, and Grounded-Segment-Anything's automatic labelling).
BOX_THRESHOLD = 0.25
# Captions whose text features are kept during a call, 0.3 MB each.
_KEPT_CAPTIONS = 256

Found = tuple[FloatArray, FloatArray, "tuple[int, ...]"]


class GroundingDino:
    """Finds what tags name; a :class:`rasa.protocols.Detector`.

    The tags of an image are packed into captions of at most 256 tokens. A box belongs to the tag over whose tokens it
    scores best, so that no text is decoded or compared. Boxes are not suppressed: see :class:`rasa.stages.Suppress`.

    The tags of a caption see each other a little, in the model's fusion layers and in its choice of 900 places, so
    that a tag's boxes depend somewhat on the tags that are asked for beside it.

    Args:
        network: On its device and in its dtype.
        tokenizer: With the vocabulary that the network was trained with.
        box_threshold: A box must score more, in [0, 1].
        score: How the token probabilities become a box's score, a name of :data:`rasa.ops.phrases.SCORES`.
        prompts: Some tags to what the detector reads instead, one text or several; other tags read as they are.
        batch_size: Images, and pairs of an image and a caption, at once. None takes 1 on a CPU, where 4 at once took
            10 % longer per image (Swin-T at 480 x 640, one core), and 8 elsewhere.
        limits: Sizes that images are resized to.
        provenance: Plain JSON values that :meth:`describe` adds, such as the checkpoint's name and sha256.

    Raises:
        InputError: If a number is out of range or the score method is unknown.
    """

    def __init__(  # noqa: PLR0913  (each is an independent choice, and all but two have defaults)
        self,
        network: GroundingDinoNetwork,
        tokenizer: BertTokenizer,
        *,
        box_threshold: float = BOX_THRESHOLD,
        score: str = "max",
        prompts: Prompts | None = None,
        batch_size: int | None = None,
        limits: Limits = PUBLISHED_LIMITS,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 <= box_threshold <= 1:
            raise InputError(f"box_threshold must be in [0, 1], got {box_threshold}")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        score_method(score)
        self._network, self._tokenizer = network, tokenizer
        self._threshold, self._score = float(box_threshold), score
        self._batch_size = batch_size or (1 if network.device.type == "cpu" else 8)
        self._prompts = {tag: [given] if isinstance(given, str) else [*given] for tag, given in (prompts or {}).items()}
        self._limits = limits
        self._provenance = dict(provenance or {})

    def detect(self, images: Sequence[Image], tags: Sequence[Sequence[str]]) -> list[Instances]:
        """One :class:`rasa.Instances` per image, best box first; see :class:`rasa.protocols.Detector`.

        Raises:
            InputError: If there are not as many lists of tags as images, or a tag cannot be put into a caption: it
                has no tokens, unknown ones or too many.
            ContractError: If the model gives no number for an image, as float16 may overflow.
        """
        if len(images) != len(tags):
            raise InputError(f"{len(images)} images need as many lists of tags, got {len(tags)}")
        asked = [tuple(names) for names in tags]
        captions = {names: self._captions(names) for names in set(asked)}
        texts = _TextStore(self._network)
        found: list[list[Found]] = [[] for _ in images]
        with torch.inference_mode():
            for group in self._groups(images, asked):
                features = self._encode([images[i] for i in group])
                pairs = [(row, caption) for row, i in enumerate(group) for caption in captions[asked[i]]]
                for row, boxes in self._run(features, pairs, texts, [images[i] for i in group]):
                    found[group[row]].append(boxes)
        return [_merged(parts, names, image) for parts, names, image in zip(found, asked, images, strict=True)]

    def to(self, device: str) -> GroundingDino:
        """Move the network to ``device``, in place.

        Raises:
            InputError: If torch knows no such device.
        """
        self._network.to(torch_device(device))
        return self

    def describe(self) -> Mapping[str, Any]:
        """Family, thresholds, prompts and dtype, and the provenance that was given."""
        return {
            "model": self._network.config.model_type,
            **self._provenance,
            "box_threshold": self._threshold,
            "score": self._score,
            "prompts": {tag: [*texts] for tag, texts in self._prompts.items()},
            "size": [self._limits.short, self._limits.long],
            "dtype": str(self._network.dtype).removeprefix("torch."),
        }

    def _captions(self, tags: Sequence[str]) -> list[Caption]:
        return self._tokenizer.captions(tags, prompts=self._prompts, limit=self._network.max_tokens)

    def _groups(self, images: Sequence[Image], asked: Sequence[Sequence[str]]) -> Iterator[list[int]]:
        """Images that run together: of exactly one size after resizing.

        Padding to a common size is no way to larger batches: 8 more columns of padding on an image of 192 x 256 moved
        the nearest box by 0.07 of a side in the median, 0.3 at most, in Swin-T with random weights: sampling reads
        beyond the image's edge, and the places of the coarse levels shift. Equal sizes differ by rounding alone
        (1e-5 in a logit, 1e-6 in a box, float32).
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(images):
            if asked[i]:
                groups.setdefault(resized_size(image.size, self._limits), []).append(i)
        for group in groups.values():
            for start in range(0, len(group), self._batch_size):
                yield group[start : start + self._batch_size]

    def _encode(self, images: Sequence[Image]) -> ImageFeatures:
        pixels = np.stack([preprocess(image, self._limits) for image in images])
        return self._network.encode_images(torch.from_numpy(pixels).to(self._network.device, self._network.dtype))

    def _run(
        self,
        features: ImageFeatures,
        pairs: Sequence[tuple[int, Caption]],
        texts: _TextStore,
        images: Sequence[Image],
    ) -> Iterator[tuple[int, Found]]:
        for start in range(0, len(pairs), self._batch_size):
            part = pairs[start : start + self._batch_size]
            rows, captions = zip(*part, strict=True)
            predicted = self._network(features.take(rows), texts.features(captions))
            logits, boxes = (each.float().cpu().numpy() for each in (predicted.logits, predicted.boxes))
            for i, (row, caption) in enumerate(part):
                yield row, self._select(logits[i, :, : len(caption)], boxes[i], caption, images[row])

    def _select(self, logits: FloatArray, boxes: FloatArray, caption: Caption, image: Image) -> Found:
        """Boxes above the threshold, xyxy in pixels, their scores and the index of their tags."""
        if not (np.isfinite(logits).all() and np.isfinite(boxes).all()):
            cure = "use bfloat16 or float32 if it runs in float16, else check its weights"
            raise ContractError(f"the model gave a score or box that is no number on {image.name!r}; {cure}")
        best = assign(_sigmoid(logits), caption, method=self._score)
        kept = np.flatnonzero(best.scores > self._threshold)
        centres, sizes = boxes[kept, :2], boxes[kept, 2:]
        height, width = image.size
        corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
        corners *= np.array([width, height, width, height], np.float32)
        return clip_boxes(corners, image.size), best.scores[kept], tuple(best.owners[kept].tolist())


class _TextStore:
    """Text features of the captions of one call, computed once; the oldest leave when there are too many."""

    def __init__(self, network: GroundingDinoNetwork) -> None:
        self._network = network
        self._kept: dict[tuple[int, ...], TextFeatures] = {}

    def features(self, captions: Sequence[Caption]) -> TextFeatures:
        """Of the captions, in order, as a batch."""
        return TextFeatures.stack([self._of(caption.token_ids) for caption in captions])

    def _of(self, token_ids: tuple[int, ...]) -> TextFeatures:
        if token_ids not in self._kept:
            # Alone: a caption's features must not depend on what else is asked in this call.
            self._kept[token_ids] = self._network.encode_text(token_ids)
            if len(self._kept) > _KEPT_CAPTIONS:
                self._kept.pop(next(iter(self._kept)))
        return self._kept[token_ids]


def _merged(parts: Sequence[Found], tags: Sequence[str], image: Image) -> Instances:
    """The boxes of all captions of an image, best first."""
    if not parts:
        return Instances()
    boxes, scores = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    owners = [owner for part in parts for owner in part[2]]
    order = np.argsort(-scores, kind="stable")
    return Instances(boxes[order], scores[order], tuple(tags[owners[i]] for i in order))


def _sigmoid(logits: FloatArray) -> FloatArray:
    # exp of a large negative number is zero, of a large positive one a warning.
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1, small) / (1 + small)
