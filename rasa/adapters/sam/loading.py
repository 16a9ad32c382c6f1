"""From a name, a file or a folder to a :class:`SamSegmenter`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from rasa._suggest import did_you_mean
from rasa._torch.files import model_files, open_tensors, read_settings, source_hash
from rasa.adapters.sam.architecture import DECODER_HEADS, SamArchitecture, architecture_of, transformers_config
from rasa.adapters.sam.keys import is_transformers, to_published
from rasa.adapters.sam.network import SamNetwork, SamWeights
from rasa.adapters.sam.segmenter import SamSegmenter
from rasa.errors import CheckpointError, DependencyError, InputError, UnknownModelError
from rasa.weights import checkpoints, fetch

Backend = Literal["segment-anything", "transformers"]

_PACKAGES: Mapping[Backend, str] = {"segment-anything": "segment_anything", "transformers": "transformers"}
# transformers' own default differs from the published code.
_FREE = ("mask_decoder_config", "layer_norm_eps")

# Published models, each with its one file.
CHECKPOINTS = ("sam-vit-b.sa1b", "sam-vit-l.sa1b", "sam-vit-h.sa1b", "sam-hq-vit-h.hq44k")


def load_sam(
    source: str | os.PathLike[str],
    *,
    device: str = "cpu",
    dtype: str = "float32",
    backend: Backend | None = None,
    decoder_heads: int | None = None,
    **options: Any,
) -> SamSegmenter:
    """A segmenter from a published model's name, or from a file or folder of weights.

    ViT-B, ViT-L, ViT-H and other sizes are told apart by the shapes of their weights. Both backends give the same
    masks, also for weights that were published for the other one: names are converted either way, and the
    decoder's norms have the published code's epsilon of 1e-5 whatever a ``config.json`` says.

    Args:
        source: One of :data:`CHECKPOINTS`, which is fetched if need be; a ``.pth`` or ``.safetensors`` file with
            the names of either package; or a folder as the model hub has it, with ``config.json`` and
            ``model.safetensors``.
        device: As torch names it.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"float64"``; boxes are encoded in float32 always.
        backend: ``"segment-anything"`` or ``"transformers"``; None takes the one that the weights were published
            for, or the other if that is not installed. SAM-HQ has the latter alone.
        decoder_heads: Attention heads of the mask decoder, which weights do not show; None takes those of a
            folder's ``config.json``, else the published 8.
        options: Keywords of :class:`SamSegmenter`.

    Raises:
        CheckpointError: If the weights are damaged, of another kind of model, or not finite.
        DependencyError: If the backend is not installed.
        InputError: If an option is wrong.
        UnknownModelError: If ``source`` is neither a published model nor a file or folder.
        WeightsError: If weights cannot be had.
    """
    if backend is not None and backend not in get_args(Backend):
        raise InputError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    found = _find(source)
    heads = found.decoder_heads if decoder_heads is None else decoder_heads
    shapes = {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}
    sizes = architecture_of(shapes, file=found.file, decoder_heads=heads)
    _check_heads(sizes)
    if found.config:
        _check_config(found.config, sizes, found.file)
    kind = _network(_choose(backend, found.natural, sizes))
    weights = SamWeights(architecture=sizes, tensors=found.tensors, device=device, dtype=dtype, file=found.file)
    return SamSegmenter(kind(weights), **{"provenance": found.provenance, **options})


def build_segmenter(name: str, *, device: str = "cpu", dtype: str = "float32") -> SamSegmenter:
    """The segmenter of a published model, fetched if need be.

    Args:
        name: One of :data:`CHECKPOINTS`.
        device: As torch names it.
        dtype: Name of a torch floating-point type.

    Raises:
        UnknownModelError: If no published model has this name.
        DependencyError, InputError, WeightsError: As :func:`load_sam`.
    """
    return load_sam(name, device=device, dtype=dtype)


# What :mod:`rasa.registry` names: `build_segmenter` of one model each, with its keywords.
build_sam_vit_b, build_sam_vit_l, build_sam_vit_h, build_sam_hq_vit_h = (
    partial(build_segmenter, name) for name in CHECKPOINTS
)


@dataclass(frozen=True, slots=True)
class _Found:
    """Weights by published names, which backend their file was made for, and what came with them."""

    file: str
    tensors: Mapping[str, Tensor]
    natural: Backend
    provenance: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def decoder_heads(self) -> int:
        """As ``config.json`` says; else those of the published models."""
        return int(self.config.get("mask_decoder_config", {}).get("num_attention_heads", DECODER_HEADS))


def _find(source: str | os.PathLike[str]) -> _Found:
    path = Path(source).expanduser()
    config: Mapping[str, Any] = {}
    if isinstance(source, str) and source in CHECKPOINTS:
        path = fetch(source)
        provenance = {"checkpoint": source, "sha256": checkpoints()[source].sha256}
    elif path.exists():
        provenance = {"checkpoint": path.name, "sha256": source_hash(path)}
        if path.is_dir():
            path, config = _in_folder(path)
    else:
        hint = did_you_mean(str(source), CHECKPOINTS)
        known = ", ".join(CHECKPOINTS)
        raise UnknownModelError(f'"{source}" is neither a file, a folder nor a model{hint}; known are {known}')
    tensors = open_tensors(path).tensors
    if is_transformers(tensors):
        return _Found(str(path), to_published(tensors, file=str(path)), "transformers", provenance, config)
    return _Found(str(path), tensors, "segment-anything", provenance, config)


def _in_folder(folder: Path) -> tuple[Path, dict[str, Any]]:
    config, file = model_files(folder)
    values = read_settings(config, cure="fetch the folder again")
    kind = values.get("model_type")
    if kind not in ("sam", "sam_hq"):
        raise CheckpointError(f'{config} is of a model of type {kind!r}, not "sam" or "sam_hq"; pass a SAM folder')
    return file, values


def _check_config(config: Mapping[str, Any], sizes: SamArchitecture, file: str) -> None:
    """Refuse a configuration that says something else than the weights beside it; the decoder's epsilon may differ."""
    for part, expected in transformers_config(sizes).items():
        given = config.get(part) or {}
        for key, value in expected.items():
            if key in given and given[key] not in (None, value) and (part, key) != _FREE:
                raise CheckpointError(
                    f"the configuration beside {file} says {part}.{key} = {given[key]!r}, and its weights need "
                    f"{value!r}; fetch the folder again"
                )


def _check_heads(sizes: SamArchitecture) -> None:
    heads, width = sizes.decoder_heads, sizes.channels // sizes.downsample
    if heads < 1 or width % heads:
        raise InputError(f"the mask decoder's {width} channels cannot have {heads} heads; pass decoder_heads=")


def _choose(backend: Backend | None, natural: Backend, sizes: SamArchitecture) -> Backend:
    if sizes.high_quality:
        if backend == "segment-anything":
            raise InputError('SAM-HQ has no backend "segment-anything"; leave backend out, or pass "transformers"')
        natural = "transformers"
    if backend is None:
        order = sorted(get_args(Backend), key=lambda name: name != natural)
        there = [name for name in order if find_spec(_PACKAGES[name])]
        backend = there[0] if there and not sizes.high_quality else natural
    if find_spec(_PACKAGES[backend]) is None:
        raise DependencyError(f'backend "{backend}" needs the package "{_PACKAGES[backend]}"; install the extra "sam"')
    return backend


def _network(backend: Backend) -> Callable[[SamWeights], SamNetwork]:
    # Each takes seconds to import, and one of them is enough.
    if backend == "segment-anything":
        from rasa.adapters.sam.original import OriginalSam  # noqa: PLC0415

        return OriginalSam
    from rasa.adapters.sam.hub import TransformersSam  # noqa: PLC0415

    return TransformersSam
