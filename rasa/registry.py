"""Model names, and how to build what they stand for.

An entry names its builder as text, so that the packages of a model are imported
when the model is asked for and not before. Other distributions add models through
the entry point group ``rasa.models``; a program adds its own with :func:`register`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from rasa._built_in import BUILT_IN
from rasa._model import Model, Role
from rasa._suggest import did_you_mean
from rasa._weight_folders import WeightFolder
from rasa.errors import ContractError, DependencyError, InputError, RasaError, RasaWarning, UnknownModelError
from rasa.protocols import Detector, DetectorSegmenter, Segmenter, Tagger

__all__ = [
    "ENTRY_POINT_GROUP",
    "Model",
    "Role",
    "WeightFolder",
    "build",
    "find_model",
    "models",
    "register",
    "takes_option",
    "unregister",
]

ENTRY_POINT_GROUP = "rasa.models"

_PROTOCOLS: Mapping[str, type] = {
    "tagger": Tagger,
    "detector": Detector,
    "segmenter": Segmenter,
    "detector-segmenter": DetectorSegmenter,
}

_registered: dict[str, Model] = {}


def models() -> Mapping[str, Model]:
    """Every known model by name: built-in ones, then plugins, then registered ones.

    A plugin that does not load is left out with a :class:`rasa.errors.RasaWarning`.
    """
    found = {model.name: model for model in BUILT_IN}
    for model in _plugins():
        if model.name in found:
            _warn(f'a plugin offers a second model "{model.name}"; it is ignored')
        else:
            found[model.name] = model
    return MappingProxyType(found | _registered)


def register(model: Model) -> None:
    """Add a model of this program; it lasts as long as the process.

    Registering the same name again replaces the earlier registration, as when a
    notebook cell runs twice.

    Raises:
        InputError: If a built-in model has that name.
    """
    if any(model.name == known.name for known in BUILT_IN):
        raise InputError(f'"{model.name}" is a built-in model; choose another name')
    _registered[model.name] = model


def unregister(name: str) -> None:
    """Take back :func:`register`.

    Raises:
        UnknownModelError: If no model of that name was registered.
    """
    if _registered.pop(name, None) is None:
        raise UnknownModelError(f'no model "{name}" was registered{did_you_mean(name, _registered)}')


def find_model(name: str) -> Model:
    """The entry called ``name``.

    Raises:
        UnknownModelError: If there is none.
    """
    # Plugins are looked at only for a name that is not at hand: discovery reads the metadata of all packages.
    at_hand = {model.name: model for model in BUILT_IN} | _registered
    known = at_hand if name in at_hand else models()
    if name not in known:
        hint = did_you_mean(name, known)
        raise UnknownModelError(f'unknown model "{name}"{hint} (`rasa models` lists all {len(known)})')
    return known[name]


def build(name: str, **options: Any) -> Any:
    """Build the model called ``name``; its packages are imported now.

    Args:
        name: One of :func:`models`.
        options: Keywords for the builder, such as ``device="cuda"``.

    Returns:
        A :class:`rasa.protocols.Tagger`, ``Detector``, ``Segmenter`` or ``DetectorSegmenter``, by the model's role.

    Raises:
        UnknownModelError: If there is no such model.
        DependencyError: If a package that it needs is missing or broken.
        InputError: If the builder does not take one of the options.
        ContractError: If what the builder returns does not fit the model's role.
        WeightsError: If a checkpoint is missing.
    """
    model = find_model(name)
    builder = _builder(model)
    _check_options(model, builder, options)
    built = builder(**options)
    if not isinstance(built, _PROTOCOLS[model.role]):
        got = f"{type(built).__module__}.{type(built).__qualname__}"
        raise ContractError(f'the builder of model "{name}" must return a {model.role}, got {got}')
    return built


def takes_option(name: str, option: str) -> bool:
    """Whether the builder of the model called ``name`` has a keyword ``option``; its packages are imported now.

    A builder with open keywords (``**options``) has it only if it names it.

    Raises:
        UnknownModelError: If there is no such model.
        DependencyError: If a package that it needs is missing or broken.
    """
    return option in inspect.signature(_builder(find_model(name))).parameters


def _builder(model: Model) -> Callable[..., Any]:
    missing = model.missing_packages
    if missing:
        names = ", ".join(f'"{package}"' for package in missing)
        cure = f'install the extra "{model.extra}"' if model.extra else "install it"
        raise DependencyError(f'model "{model.name}" needs the package{"s"[: len(missing) > 1]} {names}; {cure}')
    if not isinstance(model.builder, str):
        return model.builder
    module, _, function = model.builder.partition(":")
    try:
        builder: Callable[..., Any] = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        if isinstance(error, RasaError):
            raise
        raise DependencyError(f'model "{model.name}" cannot be imported from {model.builder}: {error}') from error
    return builder


def _check_options(model: Model, builder: Callable[..., Any], options: Mapping[str, Any]) -> None:
    parameters = inspect.signature(builder).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            hint = did_you_mean(option, parameters)
            taken = ", ".join(parameters) or "none"
            raise InputError(f'model "{model.name}" takes no option "{option}"{hint} (it takes {taken})')


def _plugins() -> Iterator[Model]:
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            yield _load_plugin(point)
        # A plugin is foreign code: whatever it raises must not take the other models with it.
        except Exception as error:  # noqa: BLE001
            _warn(f'plugin "{point.name}" ({point.value}) does not load: {type(error).__name__}: {error}')


def _load_plugin(point: EntryPoint) -> Model:
    loaded = point.load()
    model = loaded if isinstance(loaded, Model) else loaded()
    if not isinstance(model, Model):
        raise ContractError(f"it must be a rasa.registry.Model or return one, got {type(model).__name__}")
    return model


def _warn(message: str) -> None:
    warnings.warn(message, RasaWarning, stacklevel=4)
