"""Folders of weights that rasa cannot fetch: where they are, and how to get them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rasa.errors import WeightsError
from rasa.weights import cache_folder


@dataclass(frozen=True, slots=True)
class WeightFolder:
    """A folder of weights that rasa cannot fetch, because its makers give it only to those who ask.

    Attributes:
        name: Of the folder, in ``RASA_WEIGHTS`` or in ``weights`` of the cache.
        license: Of the weights.
        terms: What to know of it, in a line.
        access: How to get them, in a line.
    """

    name: str
    license: str
    terms: str
    access: str

    def find(self) -> Path | None:
        """The folder, where it is there."""
        return next((place for place in self.places if place.is_dir()), None)

    def require(self) -> Path:
        """The folder.

        Raises:
            WeightsError: If it is not there; it says how to get the weights.
        """
        if found := self.find():
            return found
        looked = " nor ".join(map(str, self.places))
        place = f"FOLDER is {self.places[-1]}, or any that you name yourself"
        raise WeightsError(f"there is no {looked}. {self.terms}: {self.access}; {place}")

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


_SAM3_LICENSE = "SAM License (custom, 2025-11-19)"

SAM3 = WeightFolder(
    "sam3.sa-co",
    license=_SAM3_LICENSE,
    terms=f"The weights of SAM 3 are gated, under the {_SAM3_LICENSE}, which forbids military and nuclear uses, among "
    "others",
    access="accept the licence on the hub's page of facebook/sam3 (Meta grants access, and can refuse it), log in with "
    "`hf auth login` or set HF_TOKEN, then `hf download facebook/sam3 --exclude sam3.pt --local-dir FOLDER`",
)
