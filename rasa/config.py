"""Configuration of a pipeline: TOML to one frozen dataclass, unknown keys refused.

The fields of :class:`PipelineConfig`, with the help, range and default that each
carries, are the single source of the TOML keys and of the command line's flags.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from rasa._suggest import did_you_mean
from rasa.errors import ConfigError, UnknownModelError
from rasa.stages import Filter, Suppress

# Which model has to be there for a number to be read at all.
_READ_BY = {
    "tag_threshold": "tagger",
    "objects_only": "detector",
    "box_threshold": "detector",
    "nms_threshold": "detector",
    "merge_threshold": "detector",
    "min_area": "detector",
    "max_instances": "detector",
}
DTYPES = ("float32", "float16", "bfloat16")
_DEVICE = re.compile(r"cpu|auto|cuda(:\d+)?|mps")


def _option(
    default: Any, kind: type, text: str, *, least: float = -math.inf, most: float = math.inf, optional: bool = False
) -> Any:
    """A field with what the check, the TOML reader and the command line need to know of it."""
    metadata = {"kind": kind, "help": text, "least": least, "most": most, "optional": optional}
    return field(default=default, metadata=metadata)


def _unit(default: float | None, text: str, *, optional: bool = False) -> Any:
    return _option(default, float, f"{text}, from 0 to 1", least=0, most=1, optional=optional)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineConfig:
    """What a pipeline is made of, and the numbers it runs with.

    A threshold of 0 is a threshold; None, which TOML writes by leaving the key out,
    means what the field's text says.
    """

    summary: str = _option("", str, "one line on what the pipeline is for")
    tagger: str | None = _option(None, str, "model that names what a photo shows; none: tags are given", optional=True)
    detector: str | None = _option(None, str, "model that finds what the tags name; none: no boxes", optional=True)
    segmenter: str | None = _option(
        None, str, "model that gives each box its mask; none: only the detector's", optional=True
    )
    tag_threshold: float | None = _unit(None, "lowest score of a tag (none: the tagger's own)", optional=True)
    box_threshold: float | None = _unit(None, "lowest score of a box (none: the detector's own)", optional=True)
    objects_only: bool = _option(
        True, bool, "ask the detector only for tags of things: not for scenes, actions and attributes"
    )
    nms_threshold: float = _unit(Suppress.nms_threshold, "IoU above which two boxes of one label are one object")
    merge_threshold: float = _unit(
        Suppress.merge_threshold, "IoU above which two boxes of different labels are one object"
    )
    min_area: float = _option(Filter.min_area, float, "smallest box kept, in square pixels", least=0)
    max_instances: int | None = _option(
        Filter.max_instances, int, "most objects kept in a photo (none: all)", least=0, optional=True
    )
    device: str = _option(
        "cpu", str, 'where models run: "cpu", "cuda", "cuda:1", "mps", or "auto" for the best there is'
    )
    dtype: str = _option("float32", str, f"number type of the models: {', '.join(DTYPES)}")
    low_memory: bool = _option(
        False, bool, "keep models in the host's memory, and on the device only the one that is at work"
    )
    compile: bool = _option(
        False, bool, "make kernels with torch.compile for the models that can; the first photo waits"
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, _checked(item.name, getattr(self, item.name), item.metadata))
        if not _DEVICE.fullmatch(self.device):
            raise ConfigError(f'device must be "cpu", "cuda", "cuda:1", "mps" or "auto", got "{self.device}"')
        if self.dtype not in DTYPES:
            raise ConfigError(f'dtype must be one of {", ".join(DTYPES)}, got "{self.dtype}"')
        if not self.models:
            raise ConfigError("a pipeline needs at least one of tagger, detector and segmenter")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> PipelineConfig:
        """Make a config of TOML keys.

        Raises:
            ConfigError: If a key is unknown, a value is wrong, or nothing would read it.
        """
        _refuse_unknown(values)
        config = cls(**values)
        _refuse_idle(config, values)
        return config

    def with_overrides(self, overrides: Mapping[str, Any]) -> PipelineConfig:
        """This config with other values for some of its fields.

        Raises:
            ConfigError: If a name is unknown, a value is wrong, or nothing would read it.
        """
        _refuse_unknown(overrides)
        config = replace(self, **overrides)
        _refuse_idle(config, overrides)
        return config

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models, in running order."""
        return tuple(name for name in (self.tagger, self.detector, self.segmenter) if name is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values that ``PipelineConfig(**values)`` turns back without loss."""
        return asdict(self)


def presets() -> tuple[str, ...]:
    """Names of the built-in presets, sorted."""
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in _preset_files() if entry.name.endswith(".toml")))


def load_preset_config(name: str) -> PipelineConfig:
    """Read the built-in preset called ``name``.

    Raises:
        UnknownModelError: If there is no such preset.
        ConfigError: If its file is malformed.
    """
    known = presets()
    if name not in known:
        hint = did_you_mean(name, known)
        raise UnknownModelError(f'unknown preset "{name}"{hint} (`rasa presets` lists them; a file ends with .toml)')
    return _read(files("rasa") / "presets" / f"{name}.toml", f"preset {name}")


def read_config(path: str | Path) -> PipelineConfig:
    """Read a pipeline from a TOML file.

    Raises:
        ConfigError: If the file is missing or no TOML, a key is unknown, or a value is
            wrong; the message names the file and, for a syntax error, the line.
    """
    return _read(Path(path), str(path))


def is_config_path(preset: str | Path) -> bool:
    """Whether ``preset`` means a file rather than a built-in preset: a ``Path``, or text that ends with .toml."""
    return isinstance(preset, Path) or preset.endswith(".toml")


def _preset_files() -> list[Traversable]:
    return list((files("rasa") / "presets").iterdir())


def _read(source: Traversable, name: str) -> PipelineConfig:
    try:
        values = tomllib.loads(source.read_bytes().decode("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{name}: there is no such file; `rasa presets` lists the built-in presets") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}: not a readable UTF-8 text file: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: no valid TOML: {error}") from error
    try:
        return PipelineConfig.from_mapping(values)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _refuse_unknown(keys: Iterable[str]) -> None:
    known = [item.name for item in fields(PipelineConfig)]
    for key in keys:
        if key not in known:
            raise ConfigError(f'unknown option "{key}"{did_you_mean(key, known)} (options: {", ".join(known)})')


def _refuse_idle(config: PipelineConfig, given: Iterable[str]) -> None:
    for key in given:
        role = _READ_BY.get(key)
        if role is not None and getattr(config, role) is None and getattr(config, key) is not None:
            raise ConfigError(f"{key} has no effect without a {role}; name a {role}, or leave {key} out")


def _checked(name: str, value: Any, rule: Mapping[str, Any]) -> Any:
    if value is None and rule["optional"]:
        return None
    if rule["kind"] is str:
        return _checked_text(name, value, rule)
    if rule["kind"] is bool:
        return _checked_switch(name, value)
    whole = rule["kind"] is int
    wanted = "a whole number" if whole else "a number"
    # bool is a number to Python, and to nobody else.
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
        cure = "; write it without quotes" if isinstance(value, str) else ""
        raise ConfigError(f"{name} must be {wanted}, got {value!r}{cure}")
    if not (math.isfinite(value) and rule["least"] <= value <= rule["most"]):
        span = f"from 0 to {rule['most']}" if rule["most"] < math.inf else f"of at least {rule['least']}"
        raise ConfigError(f"{name} must be {wanted} {span}, got {value}")
    return rule["kind"](value)


def _checked_switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}")
    return value


def _checked_text(name: str, value: Any, rule: Mapping[str, Any]) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be text, got {value!r}")
    if rule["optional"] and not value.strip():
        raise ConfigError(f"{name} must name a model, got an empty text; leave the key out for none")
    return value


def _document(config: type[PipelineConfig]) -> None:
    lines = (f"        {item.name}: {item.metadata['help']} [{item.default}]." for item in fields(config))
    config.__doc__ = f"{config.__doc__}\n    Attributes:\n" + "\n".join(lines) + "\n"


# The text of each field is written once, above, and must be in `help(PipelineConfig)` too.
_document(PipelineConfig)
