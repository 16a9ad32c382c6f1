"""TOML to frozen dataclasses and back: every key known, every value of its field's type, errors by dotted key."""

from __future__ import annotations

import json
import math
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rasa._suggest import did_you_mean
from rasa.errors import ConfigError, RasaError

Settings = TypeVar("Settings")
Table = Mapping[str, Any]


def read_table(cls: type[Settings], values: Table, *, key: str = "") -> Settings:
    """Make a dataclass of a TOML table; nested dataclasses are tables in it.

    Fields are of ``bool``, ``int``, ``float``, ``str``, ``Path``, ``Literal``, such types or None, tuples or mappings
    of them, or dataclasses. An absent key has the field's default.

    Args:
        cls: A dataclass whose own checks raise errors of rasa.
        values: What :mod:`tomllib` read.
        key: Dotted name of the table, for errors; empty for the whole file.

    Raises:
        ConfigError: If a key is unknown or missing, or a value is of a wrong type or out of its range.
    """
    known = [item.name for item in fields(cls) if item.init]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f'unknown key "{_join(key, name)}"{hint} (keys here: {", ".join(known)})')
    hints = get_type_hints(cls)
    given = {name: _value(hints[name], value, key=_join(key, name)) for name, value in values.items()}
    for item in fields(cls):  # type: ignore[arg-type]
        if item.init and item.default is MISSING and item.default_factory is MISSING and item.name not in given:
            raise ConfigError(f'the key "{_join(key, item.name)}" is missing; give it a value')
    try:
        return cls(**given)
    except RasaError as error:
        raise ConfigError(f"[{key}] {error}" if key else str(error)) from error


def merge(values: Table, others: Table) -> dict[str, Any]:
    """``values`` with what ``others`` has in their place, table by table; a None takes the key out."""
    merged = dict(values)
    for name, other in others.items():
        if other is None:
            merged.pop(name, None)
        elif isinstance(other, Mapping):
            own = merged.get(name)
            merged[name] = merge(own if isinstance(own, Mapping) else {}, other)
        else:
            merged[name] = other
    return merged


def read_override(text: str) -> dict[str, Any]:
    """``"run.epochs=3"`` as the nested table ``{"run": {"epochs": 3}}``.

    What is no TOML value is text, so that names and paths need no quotes; nothing behind ``=`` takes the key out.

    Raises:
        ConfigError: If there is no key before a ``=``.

    >>> read_override("data.images=photos/train")
    {'data': {'images': 'photos/train'}}
    """
    dotted, equals, value = text.partition("=")
    path = [part.strip() for part in dotted.split(".")]
    if not equals or not all(path):
        raise ConfigError(f'an override must be written key=value, such as run.epochs=3, got "{text}"')
    table: Any = _override_value(value.strip())
    for part in reversed(path):
        table = {part: table}
    return dict(table)


def write_table(values: Table) -> str:
    """Return a TOML document of nested tables; keys that are None are left out.

    >>> print(write_table({"name": "tiny", "run": {"epochs": 2}}), end="")
    name = "tiny"
    <BLANKLINE>
    [run]
    epochs = 2
    """
    return "\n".join(_lines(values, ())).lstrip("\n") + "\n"


def _override_value(text: str) -> Any:
    if not text:
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if text[0] in "\"'[{":
            raise ConfigError(f"no TOML value: {text}; quote it for the shell, such as --set 'a=[1, 2]'") from None
        return text


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _value(kind: Any, value: Any, *, key: str) -> Any:  # noqa: PLR0911  (one return per kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return _value(next(part for part in arguments if part is not type(None)), value, key=key)
    if origin is Literal:
        return _choice(arguments, value, key=key)
    if origin is tuple:
        return _row(arguments, value, key=key)
    if is_dataclass(kind) and isinstance(kind, type):
        return read_table(kind, _require(Mapping, value, key, "a table"), key=key)
    if origin is not None and issubclass(origin, Mapping):
        table = _require(Mapping, value, key, "a table")
        return {name: _value(arguments[1], item, key=_join(key, name)) for name, item in table.items()}
    if origin is not None and issubclass(origin, Sequence):
        return _row((arguments[0], ...), value, key=key)
    if kind in {int, float}:
        return _number(kind, value, key)
    if kind is Path:
        return Path(_require(str, value, key, "the text of a path"))
    return _require(kind, value, key, {bool: "true or false", str: "text"}.get(kind, f"a {kind}"))


def _choice(choices: Sequence[Any], value: Any, *, key: str) -> Any:
    if value not in choices:
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise ConfigError(f"{key} must be one of {', '.join(map(repr, choices))}, got {value!r}{hint}")
    return value


def _row(kinds: tuple[Any, ...], value: Any, *, key: str) -> tuple[Any, ...]:
    row = _require(list, value, key, "a list")
    if kinds[-1] is ...:
        kinds = kinds[:1] * len(row)
    if len(kinds) != len(row):
        raise ConfigError(f"{key} must have {len(kinds)} values, got {len(row)}")
    return tuple(_value(kind, item, key=f"{key}[{i}]") for i, (kind, item) in enumerate(zip(kinds, row, strict=True)))


def _number(kind: type, value: Any, key: str) -> Any:
    wanted = "a whole number" if kind is int else "a number"
    # bool is a number to Python, and to nobody else.
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        cure = "; write digits, without quotes" if isinstance(value, str) else ""
        raise ConfigError(f"{key} must be {wanted}, got {value!r}{cure}")
    if not math.isfinite(value):
        raise ConfigError(f"{key} must be a finite number, got {value}")
    return kind(value)


def _require(kind: type, value: Any, key: str, wanted: str) -> Any:
    if not isinstance(value, kind):
        raise ConfigError(f"{key} must be {wanted}, got {value!r}")
    return value


def _lines(values: Table, path: tuple[str, ...]) -> Iterator[str]:
    plain = {name: value for name, value in values.items() if not isinstance(value, Mapping) and value is not None}
    if plain and path:
        yield f"\n[{'.'.join(map(_key, path))}]"
    for name, value in plain.items():
        yield f"{_key(name)} = {_text(value)}"
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _lines(value, (*path, name))


def _key(name: str) -> str:
    return name if name and all(sign.isascii() and (sign.isalnum() or sign in "-_") for sign in name) else _text(name)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
