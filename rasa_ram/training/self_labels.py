"""Batches of which only some tags are known, filled up by the model as it was before: what it says of the others.

Photos with new tags say nothing of the old ones. Left unknown, nothing holds the old tags in place while the layers
that all tags share learn; taken as absent, they are unlearnt. The model's own tags keep them: the generation step of
RAM's data engine (arXiv:2306.03514, section 3.2), and learning without forgetting (arXiv:1606.09282) in hard labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from rasa.errors import InputError
from rasa_ram.data.samples import BatchSource, Samples, reading
from rasa_ram.modeling.ram import Ram
from rasa_ram.vocabulary import Vocabulary


class OwnTags:
    """Batches of which only some tags are known, whatever the source says of the others.

    Args:
        source: Makes batches.
        rows: Tags that the photos tell of, as positions in the vocabulary.
        num_tags: T.
    """

    def __init__(self, source: BatchSource, rows: Sequence[int], *, num_tags: int) -> None:
        self._source = source
        self._known = torch.zeros(num_tags, dtype=torch.bool)
        self._known[list(rows)] = True

    def __len__(self) -> int:
        return len(self._source)

    def batches(self, epoch: int, *, first: int = 0) -> Iterator[Samples]:
        """The source's batches of ``epoch`` from number ``first`` on."""
        with reading(self._source, epoch, first=first) as batches:
            for samples in batches:
                yield replace(samples, known=self._known.expand(len(samples.targets), -1))


class SelfLabelled:
    """A batch source whose unknown tags are those that a model finds in the same view of the photo.

    Args:
        source: Makes batches with ``known``.
        model: In evaluation mode and on its device; asked for the first of the batch's tags, in its order.
        vocabulary: Of ``model``, with the thresholds that decide.

    Raises:
        InputError: If the model is in training mode, or the vocabulary is not its own or has no thresholds.
    """

    def __init__(self, source: BatchSource, model: Ram, vocabulary: Vocabulary) -> None:
        if model.training:
            raise InputError("the model is in training mode, in which its answers are random; call model.eval() first")
        if vocabulary.thresholds is None or len(vocabulary) != model.config.num_tags:
            raise InputError(
                f"expected {model.config.num_tags} tags with thresholds, got {len(vocabulary)} "
                f"{'without' if vocabulary.thresholds is None else 'with'} them; pass the model's own vocabulary"
            )
        self._source, self._model = source, model
        self._device = next(model.parameters()).device
        self._thresholds = torch.from_numpy(vocabulary.thresholds.copy())
        with torch.inference_mode():
            self._queries = model.queries()

    def __len__(self) -> int:
        return len(self._source)

    def batches(self, epoch: int, *, first: int = 0) -> Iterator[Samples]:
        """The batches of ``epoch`` from number ``first`` on, with all of the model's tags known."""
        with reading(self._source, epoch, first=first) as batches:
            for samples in batches:
                yield self._filled(samples)

    def _filled(self, samples: Samples) -> Samples:
        if samples.known is None:
            return samples
        count = len(self._thresholds)
        targets, known = samples.targets.clone(), samples.known.clone()
        said = (self._scores(samples.pixels) > self._thresholds).to(targets.dtype)
        targets[:, :count] = torch.where(known[:, :count], targets[:, :count], said)
        known[:, :count] = True
        return replace(samples, targets=targets, known=known)

    def _scores(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            memory = self._model.encode_image(pixels.to(self._device))
            return torch.sigmoid(self._model.decode(memory, self._queries)).float().cpu()
