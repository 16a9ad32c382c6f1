"""One short text for everything that decides a result, so that labels of different runs never mix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rasa.errors import InputError

LENGTH = 16  # hexadecimal digits

# Fields of a configuration that change where and how fast the work is done, or what it is called.
_IDLE = frozenset({"summary", "low_memory"})


def fingerprint_of(provenance: Mapping[str, Any], *, extra: Mapping[str, Any] | None = None) -> str:
    """The first 16 hexadecimal digits of the sha256 of everything in ``provenance`` that decides a result.

    Stages with their models, checkpoint hashes, thresholds and vocabularies count, the configuration, the version
    of rasa, and ``extra``. The name of a preset does not (its content does), nor do which of several GPUs is used
    and the versions of other packages: those are kept in run.json, and continuing with others warns, since they
    may change the last digits of a score.

    Args:
        provenance: Of a :class:`rasa.Pipeline`.
        extra: Plain JSON values that decide results beside it, such as tags that are given.

    Raises:
        InputError: If a value is no plain JSON.
    """
    deciding = {key: value for key, value in provenance.items() if key not in {"versions", "preset", "config"}}
    deciding["rasa"] = provenance.get("versions", {}).get("rasa")
    if "config" in provenance:
        deciding["config"] = {key: value for key, value in provenance["config"].items() if key not in _IDLE}
        deciding["config"]["device"] = str(deciding["config"].get("device", "cpu")).partition(":")[0]
    if extra:
        deciding["extra"] = extra
    return hashlib.sha256(canonical_json(deciding).encode("ascii")).hexdigest()[:LENGTH]


def canonical_json(values: Any) -> str:
    """ASCII text that is the same for equal values.

    Raises:
        InputError: If a value is no plain JSON.
    """
    try:
        return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"what decides a run must be plain JSON values: {error}") from error
