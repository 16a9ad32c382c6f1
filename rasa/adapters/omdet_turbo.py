"""OmDet-Turbo (Zhao et al., arXiv:2403.06892) as a detector, on transformers.

The model reads a task sentence ("Detect cat, dog.") and one text per tag, and scores each of its boxes for each text;
no token spans are mapped. No sha256 of its files was published in a place that this project could check, so there is
no model of that name in the registry: load it from a folder, see :func:`load_omdet_turbo`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import OmDetTurboForObjectDetection

from rasa._torch.dense import use_dense
from rasa._torch.files import read_settings, source_hash
from rasa._torch.hub_folder import WHOLE_FOLDER, load_hub_model, load_hub_tokenizer
from rasa._torch.loading import torch_device, torch_dtype
from rasa._torch.squash import Squash
from rasa._torch.tag_texts import TagTexts, TextOptions, batches_of_like, check_lists, chosen_instances
from rasa._torch.text_detector import TextDetector
from rasa.errors import CheckpointError, InputError
from rasa.ops.packing import pack
from rasa.types import Image, Instances

# Default of transformers' processor.
BOX_THRESHOLD = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class _Chunk:
    """Texts whose task sentence fits, and what the text encoder makes of them: ``(P, 1, D)``, ``(L, 1, D)``."""

    asked: TagTexts
    classes: Tensor
    task: Tensor


class OmDetTurboDetector(TextDetector):
    """Finds what texts name; a :class:`rasa.protocols.Detector`.

    More tags than fit into one task sentence are shared out to several, which use the same image features. A box
    gets the tag of its best text; the original also lets one box stand for several tags, and then suppresses doubles
    by tag at an IoU of 0.5, which the stage Suppress does here.

    Arguments are those of :class:`rasa._torch.text_detector.TextDetector`; ``pixels`` is a
    :class:`rasa._torch.squash.Squash`.
    """

    family = "omdet-turbo"

    def detect(self, images: Sequence[Image], tags: Sequence[Sequence[str]]) -> list[Instances]:
        """One :class:`rasa.Instances` per image, best score first; no tags give no boxes without running the model.

        Raises:
            InputError: If a tag's text is longer than the model reads (77 tokens in the published ones), or there
                is not one list of tags per image.
            ContractError: If the model gives a number that is not finite.
        """
        check_lists(images, tags)
        asked = [self._options.texts_of(names) for names in tags]
        found = [Instances() for _ in images]
        with torch.inference_mode():
            # Padding with empty classes would change which boxes are looked at, so only equal lists share a batch.
            for texts, positions in batches_of_like(asked, self._options.batch_size):
                batch = [images[i] for i in positions]
                for i, instances in zip(positions, self._detect(batch, texts), strict=True):
                    found[i] = instances
        return found

    @property
    def _dtype(self) -> torch.dtype:
        return self._model.language_backbone.text_projection.dtype

    def _detect(self, images: Sequence[Image], asked: TagTexts) -> list[Instances]:
        chunks = [self._chunk(part) for part in self._parts(asked)]
        pixels = self._pixels(images).to(self._model.device, self._dtype)
        features = [level.float() for level in self._model.vision_backbone(pixels)]
        states = self._model.encoder(features, return_dict=True).extracted_states
        answers = [self._decode(states, chunk) for chunk in chunks]
        return [
            _joined([
                chosen_instances(
                    scores[i],
                    boxes[i] * np.array([image.size[1], image.size[0]] * 2, np.float32),
                    chunk.asked,
                    image=image,
                    threshold=self._options.box_threshold,
                )
                for chunk, (scores, boxes) in zip(chunks, answers, strict=True)
            ])
            for i, image in enumerate(images)
        ]  # fmt: skip

    def _decode(self, states: Tensor, chunk: _Chunk) -> tuple[Any, Any]:
        count = len(states[0]) if isinstance(states, list | tuple) else len(states)
        mask = torch.ones(count, len(chunk.task), dtype=torch.long, device=chunk.task.device)
        out = self._model.decoder(
            states, chunk.classes.expand(-1, count, -1), chunk.task.expand(-1, count, -1), mask, return_dict=True
        )
        return out.decoder_classes[-1].sigmoid().cpu().numpy(), out.decoder_coords[-1].cpu().numpy()

    def _parts(self, asked: TagTexts) -> list[TagTexts]:
        """The texts in groups whose task sentences fit, balanced."""
        sizes = [len(self._ids.plain(text)) + 1 for text in asked.texts]
        room = self._ids.limit - 2 - len(self._ids.plain("Detect"))
        for size, text, owner in zip(sizes, asked.texts, asked.owners, strict=True):
            if size > room:
                raise InputError(
                    f"tag {asked.tags[owner]!r} has {size - 1} tokens in {text!r}, the task sentence has room for "
                    f"{room - 1}; give it a shorter prompt"
                )
        groups = pack(sizes, room)
        return [
            TagTexts(asked.tags, tuple(asked.texts[i] for i in group), tuple(asked.owners[i] for i in group))
            for group in groups
        ]

    def _chunk(self, asked: TagTexts) -> _Chunk:
        text = self._model.language_backbone
        rows = [torch.tensor(ids) for ids in self._ids.ids_of(asked)]
        # A text ends at its largest id, and no token sees what comes after it: padding changes nothing.
        classes = text(pad_sequence(rows, batch_first=True).to(self._model.device), encode_type="class")
        ids = torch.tensor([self._task(asked)], device=self._model.device)
        task, _ = text(ids, mask=torch.ones_like(ids), encode_type="task")
        return _Chunk(asked, classes.float()[:, None], task.float())

    def _task(self, asked: TagTexts) -> list[int]:
        """Ids of "Detect cat, dog." as transformers' processor writes it."""
        return self._ids.encode(f"Detect {', '.join(asked.texts)}.", tag=asked.tags[asked.owners[0]])


def load_omdet_turbo(
    folder: str | os.PathLike[str], *, device: str = "cpu", dtype: str = "float32", **options: Any
) -> OmDetTurboDetector:
    """A detector from a folder of the model hub, such as that of ``omlab/omdet-turbo-swin-tiny-hf``.

    That one's image tower is timm's, so the package timm has to be installed. To name the model in presets and on the
    command line, register it, as :func:`rasa.adapters.owlv2.load_owlv2` shows.

    Args:
        folder: With config.json, model.safetensors, preprocessor_config.json and the tokenizer's files.
        device: As torch names it.
        dtype: Of the image and the text tower: ``"float32"``, ``"bfloat16"`` or ``"float16"``; the rest stays float32.
        options: Fields of :class:`rasa._torch.tag_texts.TextOptions`.

    Raises:
        CheckpointError: If the folder is incomplete, damaged or of another model.
        DependencyError: If its image tower needs a package that is not installed.
        InputError: If an option is wrong.
    """
    chosen = TextOptions(**{"box_threshold": BOX_THRESHOLD, **options})
    where, kind, path = torch_device(device), torch_dtype(dtype), Path(folder).expanduser()
    model = load_hub_model(path, OmDetTurboForObjectDetection, family="omdet-turbo")
    squash, tokenizer = _squash(path), load_hub_tokenizer(path)
    use_dense(model)
    model.vision_backbone.to(kind)
    model.language_backbone.to(kind)
    provenance = {"weights": path.name, "sha256": source_hash(path)}
    return OmDetTurboDetector(model.to(where), squash, tokenizer=tokenizer, options=chosen, provenance=provenance)


def _squash(folder: Path) -> Squash:
    settings = read_settings(folder / "preprocessor_config.json", cure=WHOLE_FOLDER)
    try:
        height, width = settings["size"]["height"], settings["size"]["width"]
        # The published settings state mean and deviation in levels of 256 and do not rescale.
        unit = 1.0 if settings.get("do_rescale", True) else 255.0
        mean, std = ([value / unit for value in settings[key]] for key in ("image_mean", "image_std"))
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder}: preprocessor_config.json lacks a setting: {error!r}; fetch it again"
        ) from error
    if height != width:
        raise CheckpointError(
            f"{folder}: preprocessor_config.json makes images of {height} x {width}, expected a square"
        )
    return Squash(height, tuple(mean), tuple(std), whole_levels=True)


def _joined(parts: Sequence[Instances]) -> Instances:
    whole = Instances(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        tuple(label for part in parts for label in part.labels),
    )
    return whole.take(np.argsort(-whole.scores, kind="stable"))
