"""Batches that shrink where memory is short."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rasa.errors import ContractError
from rasa.protocols import Described, Stage
from rasa.types import Image, Result

# Batches in a row after which a larger one is tried: one huge image must not make the rest of a run slow.
_PATIENCE = 32


class InHalves:
    """Run ``stage`` on at most ``limit`` images at once; out of memory halves the limit and tries again.

    A stage answers the same for a batch as for its images one by one, so the answers do not change.

    Attributes:
        stage: What runs.
        limit: Most images at once; None while memory was never short.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.limit: int | None = None
        self._calm = 0

    @property
    def provides(self) -> str | None:
        """What the stage provides."""
        return getattr(self.stage, "provides", None)

    def __call__(self, images: Sequence[Image], results: Sequence[Result]) -> list[Result]:
        """What the stage answers.

        Raises:
            Exception: Whatever the stage raises; out of memory, once a single image is too much.
        """
        done: list[Result] = []
        while len(done) < len(images):
            size = min(self.limit or len(images), len(images) - len(done))
            part = slice(len(done), len(done) + size)
            try:
                answers = list(self.stage(images[part], results[part]))
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
                self.limit, self._calm = size // 2, 0
            else:
                if len(answers) != size:
                    raise ContractError(f"{type(self.stage).__name__} gave {len(answers)} results for {size} images")
                done += answers
                self._grow(size)
                continue
            # After the handler, which keeps the failed batch alive through its traceback.
            free_memory()
        return done

    def _grow(self, size: int) -> None:
        self._calm += size == self.limit
        if self.limit is not None and self._calm >= _PATIENCE:
            self.limit, self._calm = self.limit * 2, 0

    def describe(self) -> Mapping[str, Any]:
        """The stage, as it describes itself: how images are grouped changes no answer."""
        return self.stage.describe() if isinstance(self.stage, Described) else {}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the host or the device had no memory left; PyTorch need not be loaded to tell."""
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    # The CPU allocator of PyTorch has no class of its own.
    text = str(error) if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError) or "torch.OutOfMemoryError" in kinds or "DefaultCPUAllocator" in text


def free_memory() -> None:
    """Give back what a failed batch left behind, also the blocks that PyTorch keeps on a device."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
