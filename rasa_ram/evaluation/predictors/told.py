"""What a predictor passes on of the model that it asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rasa.protocols import Described


def told(model: object) -> Mapping[str, Any]:
    """The description of a model under ``description``; nothing if it gives none."""
    return {"description": dict(model.describe())} if isinstance(model, Described) else {}
