"""What the registry knows of a model; :mod:`rasa.registry` is the public place of these names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Literal, get_args

from rasa._weight_folders import WeightFolder
from rasa.errors import InputError

Role = Literal["tagger", "detector", "segmenter", "detector-segmenter"]


@dataclass(frozen=True, slots=True)
class Model:
    """One model that can be asked for by name.

    Attributes:
        name: Such as ``"sam-vit-h"``; ``family-variant.weights`` where there are several.
        role: ``"tagger"``, ``"detector"``, ``"segmenter"`` or, for both in one, ``"detector-segmenter"``.
        builder: ``"package.module:function"``, or the function itself. It is called with keywords
            alone: always ``device`` and ``dtype`` (text), and a threshold where one was asked for.
        summary: One line for ``rasa models``.
        extra: The extra of rasa-vision that brings the packages; None where none does.
        packages: Modules that must be importable, such as ``"torch"``.
        checkpoints: Names of checkpoints that the model cannot do without; see :mod:`rasa.weights`.
        fallbacks: Names of checkpoints that it can do without, each with what it does then.
        parameters: Numbers that its weights hold, each of 4 bytes in float32; None where nobody counted them.
        keeps_copy: Whether the first load writes a converted copy of the weights, in float32, beside the fetched file.
        folder: Weights that the user has to get.

    Raises:
        InputError: If the role is none of these four, or the builder is no ``module:function``.
    """

    name: str
    role: Role
    builder: str | Callable[..., Any]
    summary: str = ""
    extra: str | None = None
    packages: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    parameters: int | None = None
    keeps_copy: bool = False
    folder: WeightFolder | None = None

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise InputError(f'model "{self.name}" has the role {self.role!r}; use one of {", ".join(get_args(Role))}')
        if isinstance(self.builder, str) and not all(self.builder.partition(":")):
            raise InputError(f'model "{self.name}" has the builder {self.builder!r}; write "package.module:function"')
        for attribute in ("packages", "checkpoints"):
            if isinstance(getattr(self, attribute), str):
                raise InputError(f'{attribute} of model "{self.name}" must be a tuple of strings')
            object.__setattr__(self, attribute, tuple(getattr(self, attribute)))
        object.__setattr__(self, "fallbacks", MappingProxyType(dict(self.fallbacks)))

    @property
    def missing_packages(self) -> tuple[str, ...]:
        """The packages that are not installed; looks for them without importing any."""
        return tuple(package for package in self.packages if find_spec(package) is None)
