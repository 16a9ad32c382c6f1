"""The batch that broke a run, kept for inspection."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from rasa._files import write_atomically
from rasa.errors import OutputError
from rasa_ram.data.samples import Samples

FOLDER = "failed"


class NotFiniteError(ArithmeticError):
    """A loss or a gradient that is not finite, before it reached the weights.

    Attributes:
        losses: The losses of all processes, by name.
        batch: Number of the batch within the step.
    """

    def __init__(self, message: str, *, losses: Mapping[str, float], batch: int) -> None:
        super().__init__(message)
        self.losses = dict(losses)
        self.batch = batch


def save_failed(
    out: Path, samples: Samples, facts: Mapping[str, Any], *, rank: int, last: Sequence[Mapping[str, Any]]
) -> Path:
    """Write a batch's tensors and names to ``out/failed``, one pair of files per process.

    Args:
        out: The run's folder.
        samples: The batch of this process.
        facts: What is known of the failure, ready for JSON; ``step`` among it names the files.
        rank: Number of this process.
        last: The losses of the steps before.

    Returns:
        The JSON file; the tensors lie beside it as safetensors.

    Raises:
        OutputError: If they cannot be written.
    """
    stem = out / FOLDER / f"step-{facts['step']:08d}-process-{rank}"
    tensors = {name: tensor.contiguous() for name, tensor in _tensors(samples).items()}
    description = {**facts, "image_paths": list(samples.image_paths), "texts": samples.texts, "last": list(last)}
    with write_atomically(stem.with_suffix(".json"), text=True, make_folder=True) as file:
        # NaN is no JSON, but Python and most readers take it, and it is what there is to say.
        json.dump(description, file, indent=1)
    try:
        save_file(tensors, stem.with_suffix(".safetensors"))
    except OSError as error:
        raise OutputError(f"cannot write {stem}.safetensors: {error.strerror or error}; make room") from error
    return stem.with_suffix(".json")


def _tensors(samples: Samples) -> dict[str, Tensor]:
    given = {name: getattr(samples, name) for name in ("pixels", "targets", "known", "teacher_pixels")}
    if samples.captions is not None:
        names = ("tag_ids", "tag_mask", "caption_ids", "caption_mask")
        given |= {name: getattr(samples.captions, name) for name in names}
    return {name: tensor for name, tensor in given.items() if tensor is not None}
