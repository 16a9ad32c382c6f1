"""What all kinds of sources of weights share: checks of their tables, and the switches that forbid the network."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from rasa._suggest import did_you_mean
from rasa.errors import ConfigError

Report = Callable[[int, int], None]
"""Called with the bytes so far and the bytes in all."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_TRUE = {"1", "ON", "TRUE", "YES"}  # as huggingface_hub reads HF_HUB_OFFLINE


@dataclass(frozen=True, slots=True)
class Wanted:
    """The file that a source is to deliver.

    Attributes:
        sha256: 64 hexadecimal digits.
        size: In bytes.
    """

    sha256: str
    size: int


def check_digest(what: str, sha256: str, size: int) -> None:
    """Refuse a malformed hash or size.

    Raises:
        ConfigError: If it is malformed.
    """
    if not _SHA256.fullmatch(sha256):
        raise ConfigError(f"{what}: sha256 must be 64 lower-case hexadecimal digits, got {sha256!r}")
    if size < 1:
        raise ConfigError(f"{what}: size must be at least 1 byte, got {size}")


def check_name(what: str, name: str) -> None:
    """Refuse a name that could leave its folder or be read as an option.

    Raises:
        ConfigError: If it could.
    """
    if not _SAFE.fullmatch(name):
        raise ConfigError(f"malformed name {name!r} of a {what}; use letters, digits, '.', '_', '+' and '-'")


def offline_switch() -> str | None:
    """Name of the environment variable that forbids the network; None if nothing does."""
    switches = ("RASA_OFFLINE", "HF_HUB_OFFLINE")
    return next((name for name in switches if os.environ.get(name, "").upper() in _TRUE), None)


def read_table(value: object, where: str) -> dict[str, Any]:
    """Refuse what is no table of TOML.

    Raises:
        ConfigError: If it is none.
    """
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a table, got {value!r}")
    return value


def read_fields(cls: type[Any], values: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Refuse keys that are no field of the dataclass ``cls``, values of a wrong type, and gaps.

    Raises:
        ConfigError: If there are any.
    """
    known = {field.name: field for field in fields(cls)}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f'{where}: unknown key "{key}"{did_you_mean(key, known)}')
        expected = {"int": int, "str": str, "bool": bool}.get(str(known[key].type))
        if expected is not None and type(value) is not expected:  # True is an int otherwise
            raise ConfigError(f"{where}: {key} must be of type {expected.__name__}, got {value!r}")
    if missing := [name for name, field in known.items() if field.default is MISSING and name not in values]:
        raise ConfigError(f'{where}: the key "{missing[0]}" is missing')
    return values
