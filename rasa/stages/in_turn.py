"""One model at a time on a device that is too small for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from rasa.protocols import Described, Movable, Stage
from rasa.types import Image, Result


@dataclass(frozen=True)
class InTurn:
    """Run ``stage`` with its model on ``device``; between batches the model waits in ``home``.

    The peak on the device is then that of the largest model, not the sum of all; a batch costs two moves more.

    Attributes:
        stage: What runs; its answers are given as they are.
        model: The model that ``stage`` drives.
        device: Where it works, such as ``"cuda"``.
        home: Where it waits.
        turn: Held by the model that is on the device; stages that share a device share it.
    """

    stage: Stage
    model: Movable
    device: str
    home: str = "cpu"
    turn: Lock = field(default_factory=Lock, repr=False, compare=False)

    @property
    def name(self) -> str | None:
        """That of the stage."""
        return getattr(self.stage, "name", None) or getattr(self.stage, "__name__", None)

    @property
    def provides(self) -> str | None:
        """What the stage provides."""
        return getattr(self.stage, "provides", None)

    def __call__(self, images: Sequence[Image], results: Sequence[Result]) -> list[Result]:
        """What the stage answers; the model is back in ``home`` afterwards, also when it fails."""
        with self.turn:
            try:
                self.model.to(self.device)
                return self.stage(images, results)
            finally:
                self.model.to(self.home)

    def describe(self) -> Mapping[str, Any]:
        """The stage, as it describes itself: where a model waits changes no answer."""
        return self.stage.describe() if isinstance(self.stage, Described) else {}
