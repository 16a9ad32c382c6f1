"""RAM, RAM++ and Tag2Text on OpenVINO: exact float32, or int8 calibrated on the user's own images.

>>> from rasa_ram.runtime.openvino import to_openvino
>>> fast = to_openvino(model, precision="int8", calibration=images)    # doctest: +SKIP
>>> tagger = RamTagger(fast, vocabulary, provenance=fast.describe())    # doctest: +SKIP

Needs the extra ``openvino``. Sends no usage reports, whatever the packages' own setting.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from rasa.arrays import FloatArray
from rasa.errors import InputError
from rasa.types import Image
from rasa_ram._fingerprint import weights_hash
from rasa_ram.config import RamConfig
from rasa_ram.modeling.label_embedding import LabelQueries
from rasa_ram.modeling.ram import ROWS_AT_ONCE, Ram
from rasa_ram.preprocess import preprocess
from rasa_ram.runtime._export import Precision, core, export, label_inputs, require, unreported
from rasa_ram.runtime._store import array_hash, recipe, stored


class OpenVinoRam:
    """A model whose encoder and decoder run on OpenVINO, for a ``RamTagger`` as any.

    It has ``encode_image``, ``queries``, ``decode`` and ``forward`` of :class:`rasa_ram.modeling.ram.Ram`, for any
    vocabulary and any batch. Images go through the graphs one at a time, with all threads at work on each: a batch
    gives exactly what its images give alone, in the memory of one.

    Args:
        model: Whose queries are used; its image encoder is not kept.
        folder: With ``encoder.xml`` and ``decoder.xml``, as :func:`to_openvino` writes them.
        precision: What :meth:`describe` says of them.
        threads: Of the CPU; None lets OpenVINO choose, which is one per core.

    Raises:
        DependencyError: If OpenVINO is not installed.
        InputError: If ``threads`` is not positive.
    """

    training = False

    def __init__(
        self, model: Ram, folder: Path, *, precision: Precision = "float32", threads: int | None = None
    ) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}")
        self._model = _without_encoder(model)
        self._graphs = folder.name  # a hash of weights, sizes, precision and calibration
        self._precision, self._version = precision, require("openvino").__version__
        self._encoder, self._decoder = (_compile(folder / f"{name}.xml", threads) for name in ("encoder", "decoder"))

    @property
    def config(self) -> RamConfig:
        """Sizes of the model."""
        return self._model.config

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that are left in torch; float32 on the CPU."""
        return self._model.parameters()

    def describe(self) -> Mapping[str, Any]:
        """Runtime, precision, and what the graphs were made of, as plain JSON values."""
        return {"runtime": f"openvino {self._version}", "precision": self._precision, "graphs": self._graphs}

    def queries(
        self, vectors: Tensor | None = None, *, rows: Tensor | None = None, present: Tensor | None = None
    ) -> LabelQueries:
        """See :meth:`rasa_ram.modeling.ram.Ram.queries`."""
        return self._model.queries(vectors, rows=rows, present=present)

    def __call__(self, pixels: Tensor) -> Tensor:
        """See :meth:`forward`."""
        return self.forward(pixels)

    def forward(self, pixels: Tensor) -> Tensor:
        """Score every tag of the model's own vocabulary: ``(B, 3, S, S)`` to logits ``(B, T)``.

        Raises:
            InputError: If ``pixels`` has another shape.
        """
        with torch.inference_mode():
            return self.decode(self.encode_image(pixels), self.queries())

    def encode_image(self, pixels: Tensor) -> Tensor:
        """See :meth:`rasa_ram.modeling.ram.Ram.encode_image`.

        Raises:
            InputError: If ``pixels`` has another shape.
        """
        size = self.config.vision.image_size
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, size, size):
            raise InputError(f"pixels must have shape (B, 3, {size}, {size}), got {tuple(pixels.shape)}")
        images = pixels.detach().float().contiguous().numpy()
        memories = [self._encoder([image[None]])[0].copy() for image in images]
        if not memories:
            return torch.zeros(0, int(self._encoder.output(0).shape[1]), self.config.memory_width)
        return torch.from_numpy(np.concatenate(memories))

    def decode(self, memory: Tensor, queries: LabelQueries, *, chunk: int | None = None) -> Tensor:
        """See :meth:`rasa_ram.modeling.ram.Ram.decode`; ``chunk`` counts the tags of one image.

        Raises:
            InputError: If ``chunk`` is not positive.
        """
        if chunk is not None and chunk < 1:
            raise InputError(f"chunk must be at least 1 tag, got {chunk}")
        logits = torch.empty(len(memory), len(queries))
        start = 0
        for part in queries.split(chunk or ROWS_AT_ONCE):
            end = start + len(part)
            for row, image in zip(logits, memory, strict=True):
                row[start:end] = self._score(image[None], part)
            start = end
        return logits

    def _score(self, image: Tensor, queries: LabelQueries) -> Tensor:
        with torch.inference_mode():
            labels = label_inputs(self._model, queries, image[:, 0])
        return torch.from_numpy(self._decoder([image.detach().contiguous().numpy(), *labels])[0][0].copy())


def to_openvino(
    model: Ram,
    *,
    precision: Precision = "float32",
    calibration: Sequence[Image] | None = None,
    cache: Path | None = None,
    threads: int | None = None,
) -> OpenVinoRam:
    """Make a model run on OpenVINO, from the cache where these weights were exported before.

    float32 gives the logits of PyTorch but for rounding. int8 quantises the products of encoder and decoder and is
    an approximation that depends on the images it is calibrated on: pass some tens of the kind that will be tagged,
    and compare the tags. ``benchmarks/ram.py`` prints what both gain.

    Args:
        model: In evaluation mode, float32, on the CPU. Its weights must not change while the result is in use.
        precision: ``float32`` or ``int8``.
        calibration: Images that show int8 its ranges; for int8 alone.
        cache: Folder of exported models; ``runtime`` in :func:`rasa.weights.cache_folder` unless given. A model
            lies there under the sha256 of its weights, sizes, precision, calibration and package versions.
        threads: Of the CPU; None lets OpenVINO choose, which is one per core.

    Raises:
        DependencyError: If OpenVINO is not installed, or NNCF for a new int8 model.
        InputError: If an argument is out of range, or the model is in training, of another dtype or device.
        OutputError: If the cache cannot be written.
    """
    _check(model, precision, calibration)
    version = require("openvino").__version__
    pixels = None if calibration is None else preprocess(calibration, model.config.vision.image_size)
    quantiser = require("nncf").__version__ if precision == "int8" else None
    made_of = recipe(
        model.config,
        weights=weights_hash(model),
        precision=precision,
        calibration=array_hash(pixels),
        versions={"openvino": version, "nncf": quantiser},
    )
    folder = stored(made_of, functools.partial(_write, model, precision, pixels), folder=cache)
    return OpenVinoRam(model, folder, precision=precision, threads=threads)


def _write(model: Ram, precision: Precision, pixels: FloatArray | None, folder: Path) -> None:
    openvino = require("openvino")
    for name, graph in export(model, precision, pixels).items():
        with unreported():
            openvino.save_model(graph, folder / f"{name}.xml", compress_to_fp16=False)


def _compile(path: Path, threads: int | None) -> Any:
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the CPU has it, with other tags
        "PERFORMANCE_HINT": "LATENCY",
        **({} if threads is None else {"INFERENCE_NUM_THREADS": threads}),
    }
    return core().compile_model(path, "CPU", options)


def _without_encoder(model: Ram) -> Ram:
    """The same model and weights without the parts that OpenVINO runs, so that these can be freed."""
    light = copy.copy(model)
    kept = {name: part for name, part in model.named_children() if name not in {"visual_encoder", "captioner"}}
    light.__dict__["_modules"] = kept  # a copy shares this table with its original
    return light


def _check(model: Ram, precision: str, calibration: Sequence[Image] | None) -> None:
    if precision not in get_args(Precision):
        raise InputError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    if precision == "int8" and not calibration:
        raise InputError("int8 needs calibration images; pass some tens of the kind that will be tagged")
    if precision == "float32" and calibration is not None:
        raise InputError("float32 needs no calibration images; leave calibration out, or ask for int8")
    if model.training:
        raise InputError("the model is in training mode; call model.eval() first")
    wrong = {(str(tensor.dtype), str(tensor.device)) for tensor in model.parameters()} - {("torch.float32", "cpu")}
    if wrong:
        raise InputError(f"the model must be float32 on the CPU, got {sorted(wrong)[0]}; load it so")
