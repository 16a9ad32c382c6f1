"""Grounding DINO on the original code, as the packages groundingdino-py and rf-groundingdino install it.

An option for who has to run that code: the same weights on :mod:`rasa.adapters.grounding_dino` need neither package
and answer the same. It needs an environment of its own: both packages (0.4.0 and 0.3.0, of the same import name) run
with transformers 4.40 to 4.57 and fail with 5, and groundingdino-py asks for an old supervision that rasa's other
extras do not take. In such an environment::

    pip install rasa-vision "transformers>=4.40,<5" torch torchvision timm safetensors pycocotools opencv-python
    pip install addict yapf supervision && pip install --no-deps groundingdino-py==0.4.0

Tags become token spans here too (:mod:`rasa.ops.phrases`): the package's own decoding of phrases is not used.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasa._torch.files import open_tensors, source_hash
from rasa._torch.loading import torch_device
from rasa.arrays import FloatArray
from rasa.errors import CheckpointError, ContractError, DependencyError, InputError
from rasa.ops.boxes import clip_boxes
from rasa.ops.phrases import CLS, QUESTION, SEP, STOP, Caption, assign, build_captions, score_method
from rasa.types import Image, Instances
from rasa.weights import checkpoints, fetch

CURE = (
    "it needs an environment of its own with transformers 4.40 to 4.57 and groundingdino-py or rf-groundingdino, see "
    "rasa.adapters.groundingdino_py; rasa's own Grounding DINO (grounding-dino-swin-t.ogc) needs neither"
)
if int(version("transformers").partition(".")[0]) >= 5:
    raise DependencyError(f"groundingdino does not run with transformers {version('transformers')}; {CURE}")
try:
    with warnings.catch_warnings():  # it imports names that timm and transformers call old
        warnings.simplefilter("ignore")
        import groundingdino
        import groundingdino.datasets.transforms as package_transforms
        from groundingdino.models import build_model
        from groundingdino.util.misc import NestedTensor
        from groundingdino.util.slconfig import SLConfig
        from transformers import BatchEncoding
except ImportError as error:
    raise DependencyError(f"groundingdino cannot be imported ({error}); {CURE}") from error

# Of the RAM and Grounding DINO demo.
BOX_THRESHOLD = 0.25
# In files, and not in the network.
_TRAINING_ONLY = {"label_enc.weight", "bert.embeddings.position_ids"}
_CONFIGS = {"grounding-dino-swin-t.ogc": "SwinT_OGC", "grounding-dino-swin-b.cogcoor": "SwinB_cfg"}


class GroundingDinoPy:
    """Finds what tags name, with the package's network; a :class:`rasa.protocols.Detector`.

    Images of one size and one list of tags share a batch; each caption runs the whole network.

    Args:
        model: Of the package, in evaluation mode. It is taken over: its tokenizer is replaced by one that takes ids.
        tokenizer: That of bert-base-uncased; None takes the model's.
        box_threshold: A box must score more, in [0, 1].
        score: A name of :data:`rasa.ops.phrases.SCORES`.
        prompts: Some tags to what the detector reads instead, one text or several.
        batch_size: Images at once.
        limits: Length in pixels of an image's short side, and the most of its long side.
        provenance: Plain JSON values that :meth:`describe` adds.

    Raises:
        InputError: If a number is out of range or the score method is unknown.
    """

    def __init__(  # noqa: PLR0913  (those of GroundingDino)
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        box_threshold: float = BOX_THRESHOLD,
        score: str = "max",
        prompts: Mapping[str, str | Sequence[str]] | None = None,
        batch_size: int = 4,
        limits: tuple[int, int] = (800, 1333),
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if not 0 <= box_threshold <= 1:
            raise InputError(f"box_threshold must be in [0, 1], got {box_threshold}")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        score_method(score)
        self._model, self._tokenizer = model, model.tokenizer if tokenizer is None else tokenizer
        model.tokenizer = _Verbatim()
        self._threshold, self._score, self._batch_size = float(box_threshold), score, batch_size
        self._prompts = {tag: [given] if isinstance(given, str) else [*given] for tag, given in (prompts or {}).items()}
        self._limits, self._provenance = limits, dict(provenance or {})

    def detect(self, images: Sequence[Image], tags: Sequence[Sequence[str]]) -> list[Instances]:
        """One :class:`rasa.Instances` per image, best box first; no tags give no boxes without running the model.

        Raises:
            InputError: If there are not as many lists of tags as images, or a tag has no tokens, unknown ones or too
                many.
            ContractError: If the model gives no number for an image.
        """
        if len(images) != len(tags):
            raise InputError(f"{len(images)} images need as many lists of tags, got {len(tags)}")
        asked = [tuple(names) for names in tags]
        captions = {names: self._captions(names) for names in set(asked)}
        found = [Instances() for _ in images]
        for positions in self._batches(images, asked):
            names = asked[positions[0]]
            batch = [images[i] for i in positions]
            pixels = torch.stack([self._pixels(image) for image in batch])
            parts = [(caption, *self.run(pixels, caption)) for caption in captions[names]]
            for row, i in enumerate(positions):
                rows = [(caption, scores[row], boxes[row]) for caption, scores, boxes in parts]
                found[i] = self._chosen(rows, names, images[i])
        return found

    def run(self, pixels: Tensor, caption: Caption) -> tuple[FloatArray, FloatArray]:
        """The network on images of one size with one caption.

        Args:
            pixels: ``(B, 3, h, w)``, normalised.
            caption: L tokens.

        Returns:
            Probabilities float32 ``(B, Q, L)`` and boxes ``(B, Q, 4)``: centre and size as shares of the image.
        """
        where = next(self._model.parameters())
        # One caption a batch: the original mixes up the text masks of unequal ones.
        with torch.inference_mode():
            samples = _with_room(pixels.to(where), self._model.num_queries)
            out = self._model(samples, captions=[caption.token_ids] * len(pixels))
        scores = out["pred_logits"][..., : len(caption)].sigmoid().float().cpu().numpy()
        height, width = (samples.tensors.shape[side] / pixels.shape[side] for side in (-2, -1))
        boxes = out["pred_boxes"].float().cpu().numpy() * np.array([width, height] * 2, np.float32)
        return scores, boxes

    def to(self, device: str) -> GroundingDinoPy:
        """Move the model, in place; InputError if torch knows no such device."""
        self._model.to(torch_device(device))
        return self

    def describe(self) -> Mapping[str, Any]:
        """Package, thresholds and prompts, and the provenance that was given."""
        return {
            "model": "groundingdino-py",
            "package": _package(),
            **self._provenance,
            "box_threshold": self._threshold,
            "score": self._score,
            "prompts": {tag: [*texts] for tag, texts in self._prompts.items()},
            "size": [*self._limits],
        }

    def _captions(self, tags: Sequence[str]) -> list[Caption]:
        pairs = [(self._ids(text, tag), i) for i, tag in enumerate(tags) for text in self._prompts.get(tag, [tag])]
        return build_captions([ids for ids, _ in pairs], [owner for _, owner in pairs], names=tags)

    def _ids(self, text: str, tag: str) -> list[int]:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = [i for i in ids if i not in (CLS, SEP, STOP, QUESTION)]
        if not ids or self._tokenizer.unk_token_id in ids:
            raise InputError(f"tag {tag!r} has no words in {text!r} that the detector knows; give it an English prompt")
        return ids

    def _batches(self, images: Sequence[Image], asked: Sequence[tuple[str, ...]]) -> Iterator[list[int]]:
        groups: dict[Any, list[int]] = {}
        for i, (image, names) in enumerate(zip(images, asked, strict=True)):
            if names:
                groups.setdefault((image.size, names), []).append(i)
        for group in groups.values():
            for start in range(0, len(group), self._batch_size):
                yield group[start : start + self._batch_size]

    def _pixels(self, image: Image) -> Tensor:
        short, long = self._limits
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        steps = [package_transforms.ToTensor(), package_transforms.Normalize(mean, std)]
        resize = package_transforms.RandomResize([short], max_size=long)
        pixels, _ = package_transforms.Compose([resize, *steps])(PIL.Image.fromarray(image.pixels), None)
        return pixels

    def _chosen(
        self, parts: Sequence[tuple[Caption, FloatArray, FloatArray]], tags: Sequence[str], image: Image
    ) -> Instances:
        if not all(np.isfinite(scores).all() and np.isfinite(boxes).all() for _, scores, boxes in parts):
            raise ContractError(f"the model gave a number that is not finite on {image.name!r}; check its weights")
        best = [assign(scores, caption, method=self._score) for caption, scores, _ in parts]
        scores, owners = (np.concatenate([getattr(each, key) for each in best]) for key in ("scores", "owners"))
        boxes = np.concatenate([boxes for _, _, boxes in parts])
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > np.float32(self._threshold)]
        half = boxes[order, 2:] / 2
        corners = np.concatenate([boxes[order, :2] - half, boxes[order, :2] + half], axis=1)
        corners *= np.array([image.size[1], image.size[0]] * 2, np.float32)
        return Instances(clip_boxes(corners, image.size), scores[order], tuple(tags[owners[i]] for i in order))


class _Verbatim:
    """Stands where the network has its tokenizer, and takes token ids for texts; all of one length."""

    def __call__(self, captions: Sequence[Sequence[int]], **_: Any) -> BatchEncoding:
        ids = torch.tensor([list(caption) for caption in captions])
        ones, zeros = torch.ones_like(ids), torch.zeros_like(ids)
        return BatchEncoding({"input_ids": ids, "token_type_ids": zeros, "attention_mask": ones})


def load_groundingdino_py(
    source: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    text_encoder: str | os.PathLike[str] = "bert-base-uncased",
    device: str = "cpu",
    **options: Any,
) -> GroundingDinoPy:
    """A detector on the package's own code and configuration.

    Args:
        source: ``"grounding-dino-swin-t.ogc"`` or ``"grounding-dino-swin-b.cogcoor"``.
        weights: The model's file; None takes the one of ``source``, fetched if need be.
        text_encoder: Folder of BERT with its tokenizer; by name, transformers fetches it (the weights in ``weights``
            then take the place of its own).
        device: As torch names it.
        options: Keywords of :class:`GroundingDinoPy`.

    Raises:
        CheckpointError: If the weights are damaged or of another model.
        InputError: If ``source`` or an option is wrong.
        WeightsError: If the weights cannot be fetched.
    """
    if source not in _CONFIGS:
        raise InputError(f'source must be one of {", ".join(_CONFIGS)}, got "{source}"')
    where = torch_device(device)
    path = fetch(source) if weights is None else Path(weights)
    settings = SLConfig.fromfile(
        str(Path(groundingdino.__file__).parent / "config" / f"GroundingDINO_{_CONFIGS[source]}.py")
    )
    settings.device, settings.text_encoder_type = device, os.fspath(text_encoder)
    settings.use_checkpoint = settings.use_transformer_ckpt = False  # they save memory of training
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the name of its text encoder
        model = build_model(settings)
    load_weights(model, path)
    sha256 = checkpoints()[source].sha256 if weights is None else source_hash(path)
    provenance = {"weights": path.name, "sha256": sha256}
    return GroundingDinoPy(model.to(where).eval(), **{"provenance": provenance, **options})


def load_weights(model: nn.Module, path: Path) -> None:
    """Give the package's network the tensors of a file, all of them; the package itself passes over what is missing.

    Raises:
        CheckpointError: If the file is damaged, or a tensor is missing, unknown or of a wrong shape.
    """
    tensors = {key.removeprefix("module."): tensor for key, tensor in open_tensors(path).tensors.items()}
    try:
        missing, unknown = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{path} is of another model: {str(error).splitlines()[-1].strip()}") from error
    wrong = sorted(set(missing) | (set(unknown) - _TRAINING_ONLY))
    if wrong:
        raise CheckpointError(f'{path} is of another model: {len(wrong)} keys do not fit, first "{wrong[0]}"')


def _with_room(pixels: Tensor, queries: int) -> NestedTensor:
    """Pad images that are so thin that the network has fewer places than boxes to predict, which it fails on."""
    height, width = pixels.shape[-2:]
    while sum(-(-height // stride) * -(-width // stride) for stride in (8, 16, 32, 64)) < queries:
        height, width = (height + 8, width) if height < width else (height, width + 8)
    room = (0, width - pixels.shape[-1], 0, height - pixels.shape[-2])
    padding = F.pad(torch.zeros_like(pixels[:, 0], dtype=torch.bool), room, value=True)
    return NestedTensor(F.pad(pixels, room), padding)


def _package() -> str:
    for name in ("groundingdino-py", "rf-groundingdino"):
        with contextlib.suppress(ModuleNotFoundError):
            return f"{name} {version(name)}"
    return "unknown"
