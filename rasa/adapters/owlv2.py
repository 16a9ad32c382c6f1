"""OWLv2 (Minderer et al., arXiv:2306.09683) as a detector, on transformers.

The model scores every patch of the image for every text, so a box belongs to the text with the highest score; no
token spans are mapped. No sha256 of its files was published in a place that this project could check, so there is no
model of that name in the registry: load it from a folder, see :func:`load_owlv2`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Owlv2ForObjectDetection
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

from rasa._torch.dense import use_dense
from rasa._torch.files import read_settings, source_hash
from rasa._torch.hub_folder import WHOLE_FOLDER, load_hub_model, load_hub_tokenizer
from rasa._torch.loading import torch_device, torch_dtype
from rasa._torch.tag_texts import TagTexts, TextOptions, check_lists, chosen_instances
from rasa._torch.text_detector import TextDetector
from rasa.arrays import ByteArray
from rasa.errors import CheckpointError
from rasa.types import Image, Instances

# Defaults of transformers' processor, and the form of text in the model's card.
BOX_THRESHOLD = 0.1
TEMPLATE = "a photo of a {}"
# Texts that are encoded at once, which bounds the memory.
TEXTS_AT_ONCE = 256


class Owlv2Detector(TextDetector):
    """Finds what texts name; a :class:`rasa.protocols.Detector`.

    Arguments are those of :class:`rasa._torch.text_detector.TextDetector`; ``pixels`` is a processor of transformers.
    """

    family = "owlv2"

    def detect(self, images: Sequence[Image], tags: Sequence[Sequence[str]]) -> list[Instances]:
        """One :class:`rasa.Instances` per image, best score first; no tags give no boxes without running the model.

        Raises:
            InputError: If a tag's text is longer than the model reads (16 tokens in the published ones), or there
                is not one list of tags per image.
            ContractError: If the model gives a number that is not finite.
        """
        check_lists(images, tags)
        asked = [self._options.texts_of(names) for names in tags]
        with torch.inference_mode():
            vectors = self._text_vectors(asked)
            found = [Instances() for _ in images]
            work = [i for i, texts in enumerate(asked) if texts.texts]
            for start in range(0, len(work), self._options.batch_size):
                batch = work[start : start + self._options.batch_size]
                for i, features in zip(batch, self._features([images[i] for i in batch]), strict=True):
                    found[i] = self._found(features, vectors, asked[i], image=images[i])
        return found

    @property
    def _dtype(self) -> torch.dtype:
        return self._model.owlv2.text_projection.weight.dtype

    def _text_vectors(self, asked: Sequence[TagTexts]) -> dict[str, Tensor]:
        """Each distinct text of all images to its vector, float32 ``(D,)``."""
        ids = {text: row for texts in asked for text, row in zip(texts.texts, self._ids.ids_of(texts), strict=True)}
        texts, rows = list(ids), [torch.tensor(row) for row in ids.values()]
        vectors: list[Tensor] = []
        for start in range(0, len(rows), TEXTS_AT_ONCE):
            # A text ends at its largest id, and no token sees what comes after it: padding changes nothing.
            batch = pad_sequence(rows[start : start + TEXTS_AT_ONCE], batch_first=True).to(self._model.device)
            pooled = self._model.owlv2.text_model(input_ids=batch).pooler_output
            vectors += F.normalize(self._model.owlv2.text_projection(pooled).float(), dim=-1)
        return dict(zip(texts, vectors, strict=True))

    def _features(self, images: Sequence[Image]) -> Tensor:
        """Float32 ``(B, patches, D)``."""
        planes = [_unmistakable(image) for image in images]
        pixels = self._pixels(images=planes, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
        vision = self._model.owlv2.vision_model
        hidden = vision(pixel_values=pixels.to(self._model.device, self._dtype)).last_hidden_state
        tokens = vision.post_layernorm(hidden).float()
        return self._model.layer_norm(tokens[:, 1:] * tokens[:, :1])

    def _found(self, features: Tensor, vectors: Mapping[str, Tensor], asked: TagTexts, *, image: Image) -> Instances:
        side = self._model.num_patches_height
        texts = torch.stack([vectors[text] for text in asked.texts])
        logits, _ = self._model.class_predictor(features[None], texts[None])
        boxes = self._model.box_predictor(features[None], features.reshape(1, side, side, -1))
        # The image lies in the upper left of a square with its longer side.
        pixels = boxes[0].float().cpu().numpy() * np.float32(max(image.size))
        scores = logits[0].sigmoid().cpu().numpy()
        return chosen_instances(scores, pixels, asked, image=image, threshold=self._options.box_threshold)


def load_owlv2(
    folder: str | os.PathLike[str], *, device: str = "cpu", dtype: str = "float32", **options: Any
) -> Owlv2Detector:
    """A detector from a folder of the model hub, such as that of ``google/owlv2-base-patch16-ensemble``.

    To name it in a pipeline's configuration, register it (a plugin does so for the command line, see
    :mod:`rasa.registry`)::

        build = functools.partial(load_owlv2, "models/owlv2")
        rasa.registry.register(rasa.registry.Model("owlv2-base.own", "detector", build))

    Args:
        folder: With config.json, model.safetensors, preprocessor_config.json and the tokenizer's files.
        device: As torch names it.
        dtype: Of the image and the text tower: ``"float32"``, ``"bfloat16"`` or ``"float16"``. What turns their
            features into scores and boxes stays float32: bfloat16 has no two numbers between 0.5 and 0.504.
        options: Fields of :class:`rasa._torch.tag_texts.TextOptions`.

    Raises:
        CheckpointError: If the folder is incomplete, damaged or of another model.
        InputError: If an option is wrong.
    """
    chosen = TextOptions(**{"box_threshold": BOX_THRESHOLD, "template": TEMPLATE, **options})
    where, kind, path = torch_device(device), torch_dtype(dtype), Path(folder).expanduser()
    model = load_hub_model(path, Owlv2ForObjectDetection, family="owlv2")
    processor = _processor(path, model.config.vision_config.image_size)
    tokenizer = load_hub_tokenizer(path)
    use_dense(model)
    model.owlv2.to(kind)
    provenance = {"weights": path.name, "sha256": source_hash(path)}
    return Owlv2Detector(model.to(where), processor, tokenizer=tokenizer, options=chosen, provenance=provenance)


def _unmistakable(image: Image) -> ByteArray:
    """The pixels, each as a square of four if the image is so small that its size could be taken for its channels."""
    return image.pixels if max(image.size) > 3 else image.pixels.repeat(4, axis=0).repeat(4, axis=1)


def _processor(folder: Path, side: int) -> Owlv2ImageProcessorPil:
    settings = dict(read_settings(folder / "preprocessor_config.json", cure=WHOLE_FOLDER))
    size = settings.get("size")
    if size != {"height": side, "width": side}:
        raise CheckpointError(f"{folder}: preprocessor_config.json makes images of size {size}, the model reads {side}")
    settings.pop("image_processor_type", None)
    return Owlv2ImageProcessorPil(**settings)
