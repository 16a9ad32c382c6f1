"""Folders of weights that rasa cannot fetch: where they are, and how to get them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rasa.weights import cache_folder


@dataclass(frozen=True, slots=True)
class WeightFolder:
    """A folder of weights that rasa cannot fetch, because its makers give it only to those who ask.

    Attributes:
        name: Of the folder, in ``RASA_WEIGHTS`` or in ``weights`` of the cache.
        license: Of the weights.
        access: How to get them, in a line.
    """

    name: str
    license: str
    access: str

    def find(self) -> Path | None:
        """The folder, where it is there."""
        return next((place for place in self.places if place.is_dir()), None)

    @property
    def places(self) -> tuple[Path, ...]:
        """Where it is looked for, in order."""
        given = os.environ.get("RASA_WEIGHTS")
        folders = [Path(given).expanduser()] if given else []
        return tuple(place / self.name for place in (*folders, self.home))

    @property
    def home(self) -> Path:
        """The cache's own place for such folders."""
        return cache_folder() / "weights"


SAM3 = WeightFolder(
    "sam3.sa-co",
    license="SAM License (custom, 2025-11-19)",
    access="accept the licence on the hub's page of facebook/sam3 (Meta grants access, and can refuse it), log in with "
    "`hf auth login` or set HF_TOKEN, then `hf download facebook/sam3 --exclude sam3.pt --local-dir FOLDER`",
)
