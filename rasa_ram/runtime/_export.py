"""From a torch model to OpenVINO graphs, in float32 or quantised to int8."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rasa.arrays import FloatArray
from rasa.errors import DependencyError
from rasa_ram.modeling.ram import Ram

Precision = Literal["float32", "int8"]

# Tags that calibrate the decoder: it treats each tag alike, and 512 of them give 10^5 activations per image.
CALIBRATION_TAGS = 512


class Encoder(nn.Module):
    """The part of a model that reads pixels, as a module of its own.

    Args:
        model: In evaluation mode, float32, on the CPU.
    """

    def __init__(self, model: Ram) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode ``(1, 3, S, S)`` to ``(1, 1 + N, C)``."""
        return self.model.encode_image(pixels)


class Decoder(nn.Module):
    """The part of a model that scores tags, as a module of its own; the final weights are inputs too.

    Args:
        model: In evaluation mode, float32, on the CPU.
    """

    def __init__(self, model: Ram) -> None:
        super().__init__()
        self.tag_decoder = model.tag_decoder

    def forward(  # noqa: PLR0917  (the inputs of a graph have no keywords)
        self, memory: Tensor, hidden: Tensor, projected: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        """Score t tags.

        Args:
            memory: ``(1, 1 + N, C)``.
            hidden: ``(1, t, D)``.
            projected: ``(1, t, D)``.
            weight: ``(t, D)``, or ``(1, D)`` for all tags.
            bias: ``(t,)``, or ``(1,)`` for all tags.

        Returns:
            Logits ``(1, t)``.
        """
        hidden = self.tag_decoder(hidden, self.tag_decoder.project(memory), projected)
        return (hidden * weight).sum(-1) + bias


def require(package: str) -> ModuleType:
    """Import a package of the extra ``openvino``.

    Raises:
        DependencyError: If it is not installed.
    """
    try:
        with unreported():
            return importlib.import_module(package)
    except ImportError as error:
        raise DependencyError(f'this runtime needs the package "{package}"; install the extra "openvino"') from error


@functools.cache
def core() -> Any:
    """The one OpenVINO core of this process, which is never unloaded.

    Its CPU plugin gives the thread that loads it a stack for signals. Of two that are unloaded in the order they were
    loaded in, or in another thread, the plugin leaves that thread a stack which is gone: the next Ctrl-C is a crash.

    Raises:
        DependencyError: If the package is missing.
    """
    return require("openvino").Core()


def export(model: Ram, precision: Precision, pixels: FloatArray | None) -> dict[str, Any]:
    """Turn a model into OpenVINO graphs by name: ``encoder`` and ``decoder``.

    Args:
        model: In evaluation mode, float32, on the CPU.
        precision: Of the products; all else is float32.
        pixels: ``(B, 3, S, S)`` images that calibrate int8.

    Raises:
        DependencyError: If a package is missing.
    """
    openvino = require("openvino")
    size = model.config.vision.image_size
    with unreported(), torch.no_grad():
        encoder = _convert(openvino, Encoder(model), (torch.zeros(1, 3, size, size),))
        example = _decoder_example(model, tokens=encoder.output(0).shape[1])
        decoder = _convert(openvino, Decoder(model), example, dynamic=_dynamic(model))
    graphs = {"encoder": encoder, "decoder": decoder}
    return graphs if precision == "float32" or pixels is None else _quantise(model, graphs, pixels)


def _decoder_example(model: Ram, *, tokens: int) -> tuple[Tensor, ...]:
    """Inputs of which only the shapes are read; two tags, as the number 1 would be taken for a constant."""
    width = model.config.width
    finals = 2 if model.config.family == "tag2text" else 1
    shapes = [(1, tokens, model.config.memory_width), (1, 2, width), (1, 2, width), (finals, width), (finals,)]
    return tuple(torch.zeros(shape) for shape in shapes)


def _dynamic(model: Ram) -> tuple[Any, ...]:
    tags = torch.export.Dim("tags", min=1)
    final = {0: tags} if model.config.family == "tag2text" else None
    return (None, {1: tags}, {1: tags}, final, final)


def _convert(openvino: Any, module: nn.Module, example: tuple[Tensor, ...], *, dynamic: Any = None) -> Any:
    program = torch.export.export(module.eval(), example, dynamic_shapes=dynamic, strict=False)
    return openvino.convert_model(program)


def _quantise(model: Ram, graphs: dict[str, Any], pixels: FloatArray) -> dict[str, Any]:
    images = [image[None] for image in pixels]
    encode = core().compile_model(graphs["encoder"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    memories = [encode([image])[0].copy() for image in images]
    labels = calibration_labels(model, torch.from_numpy(memories[0][:, 0]))
    samples = {"encoder": [(image,) for image in images], "decoder": [(memory, *labels) for memory in memories]}
    return {name: _quantised(graph, samples[name]) for name, graph in graphs.items()}


def _quantised(graph: Any, samples: Sequence[tuple[FloatArray, ...]]) -> Any:
    nncf = require("nncf")
    with unreported(), _silent():
        return nncf.quantize(
            graph,
            nncf.Dataset(samples, list),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(samples),
        )


def calibration_labels(model: Ram, pooled: Tensor) -> tuple[FloatArray, ...]:
    """All inputs of the decoder graph but the memory, for tags that are spread evenly over the model's own."""
    count = model.config.num_tags
    rows = torch.linspace(0, count - 1, min(count, CALIBRATION_TAGS)).round().long()
    with torch.inference_mode():
        return label_inputs(model, model.queries(rows=rows), pooled)


def label_inputs(model: Ram, queries: Any, pooled: Tensor) -> tuple[FloatArray, ...]:
    """What the decoder graph reads besides the memory of one image.

    Args:
        model: With or without its image encoder.
        queries: t tags, from ``model.queries``.
        pooled: ``(1, C)``, the image's pooled token, by which RAM++ weighs descriptions.

    Returns:
        hidden and projected ``(1, t, D)``, weight and bias of the final layer.
    """
    if queries.descriptions is None:
        hidden, projected = queries.hidden[None], queries.projected[None]
    else:
        hidden = model.label_embedding(model.label_embedding.reweight(queries.descriptions, pooled, queries.present))
        projected = model.tag_decoder.first_query(hidden)
    rows = slice(None) if queries.rows is None else queries.rows
    final = (model.fc.weight[rows], model.fc.bias[rows])
    return tuple(tensor.detach().contiguous().numpy() for tensor in (hidden, projected, *final))


@contextlib.contextmanager
def unreported() -> Iterator[None]:
    """Let the packages send nothing, write nothing about the user, and not warn of themselves.

    OpenVINO and NNCF report their use unless ``opt_in_out --opt_out`` was run, which is a lasting choice and the
    user's (docs.openvino.ai, "OpenVINO Telemetry"); so the reporter is held off here, and as it was afterwards.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for owner, name, value in _reporters():
            stack.enter_context(_replaced(owner, name, value))
        yield


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Let NNCF, once imported, draw no progress bars and log errors only."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _reporters() -> list[tuple[Any, str, Callable[..., Any]]]:
    try:
        checker = importlib.import_module("openvino_telemetry.utils.opt_in_checker")
        sender = importlib.import_module("openvino_telemetry.utils.sender")
    except ImportError:
        return []  # nothing can report then
    declined = checker.ConsentCheckResult.DECLINED
    return [
        (checker.OptInChecker, "check", lambda *_args, **_options: declined),
        (sender.TelemetrySender, "send", lambda *_args, **_options: None),
    ]


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Callable[..., Any]) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
