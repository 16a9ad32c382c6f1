"""Model names, and how to build what they stand for.

An entry names its builder as text, so that the packages of a model are imported
when the model is asked for and not before. Other distributions add models through
the entry point group ``rasa.models``; a program adds its own with :func:`register`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Literal, get_args

from rasa._suggest import did_you_mean
from rasa.errors import ContractError, DependencyError, InputError, RasaError, RasaWarning, UnknownModelError
from rasa.protocols import Detector, Segmenter, Tagger

Role = Literal["tagger", "detector", "segmenter"]
ENTRY_POINT_GROUP = "rasa.models"

_PROTOCOLS: Mapping[str, type] = {"tagger": Tagger, "detector": Detector, "segmenter": Segmenter}


@dataclass(frozen=True, slots=True)
class Model:
    """One model that can be asked for by name.

    Attributes:
        name: Such as ``"sam-vit-h"``; ``family-variant.weights`` where there are several.
        role: ``"tagger"``, ``"detector"`` or ``"segmenter"``.
        builder: ``"package.module:function"``, or the function itself. It is called with keywords
            alone: always ``device`` and ``dtype`` (text), and a threshold where one was asked for.
        summary: One line for ``rasa models``.
        extra: The extra of rasa-vision that brings the packages; None where none does.
        packages: Modules that must be importable, such as ``"torch"``.
        checkpoints: Names of checkpoints that the model cannot do without; see :mod:`rasa.weights`.
        fallbacks: Names of checkpoints that it can do without, each with what it does then.

    Raises:
        InputError: If the role is none of the three, or the builder is no ``module:function``.
    """

    name: str
    role: Role
    builder: str | Callable[..., Any]
    summary: str = ""
    extra: str | None = None
    packages: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    fallbacks: Mapping[str, str] = field(default_factory=dict)

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


_RAM_PACKAGES = ("torch", "timm", "safetensors", "huggingface_hub")
_RAM_FALLBACKS = {"ram-tags-chinese": "no Chinese names of the tags"}

_BUILT_IN = (
    Model(
        name="lite-tagger",
        role="tagger",
        builder="rasa.adapters.lite.tagger:build_tagger",
        summary="everyday tags: EfficientNet-Lite0 and 2 on sliding windows, ImageNet classes rolled up",
        extra="lite",
        packages=("torch", "cv2"),
        checkpoints=("efficientnet-lite0.in1k",),
        fallbacks={
            "efficientnet-lite2.in1k": "tags come from EfficientNet-Lite0 alone",
            "ssd-mobilenet-v2.coco": "no tags of the detector, such as person",
        },
    ),
    Model(
        name="lite-detector",
        role="detector",
        builder="rasa.adapters.lite.detector:build_detector",
        summary="boxes: SSD-MobileNetV2 for the 80 COCO classes, class maps for other tags",
        extra="lite",
        packages=("torch", "cv2"),
        checkpoints=("efficientnet-lite0.in1k",),
        fallbacks={
            "efficientnet-lite2.in1k": "the second opinion comes from EfficientNet-Lite0 alone",
            "ssd-mobilenet-v2.coco": "boxes come from class maps alone",
            "dinov2-vits14.focus": "boxes of what SSD does not know are rough",
        },
    ),
    Model(
        name="lite-segmenter",
        role="segmenter",
        builder="rasa.adapters.lite.segmenter:build_segmenter",
        summary="masks from boxes: DINOv2 ViT-S/14 with importance decoder, refined by GrabCut",
        extra="lite",
        packages=("torch", "cv2"),
        fallbacks={"dinov2-vits14.focus": "masks come from GrabCut alone"},
    ),
    Model(
        name="ram-swin-l.14m",
        role="tagger",
        builder="rasa_ram.tagger:build_ram_tagger",
        summary="RAM: 4585 tags, or any others by name, with a threshold for each",
        extra="ram",
        packages=_RAM_PACKAGES,
        checkpoints=("ram-swin-l.14m", "ram-tags", "ram-tag-thresholds"),
        fallbacks=_RAM_FALLBACKS,
    ),
    Model(
        name="ram-plus-swin-l.14m",
        role="tagger",
        builder="rasa_ram.tagger:build_ram_plus_tagger",
        summary="RAM++: 4585 tags, or any others by name or description",
        extra="ram",
        packages=_RAM_PACKAGES,
        checkpoints=("ram-plus-swin-l.14m", "ram-tags", "ram-tag-thresholds"),
        fallbacks=_RAM_FALLBACKS,
    ),
    Model(
        name="tag2text-swin-b.14m",
        role="tagger",
        builder="rasa_ram.tagger:build_tag2text_tagger",
        summary="Tag2Text: 3429 tags, smaller and older than RAM",
        extra="ram",
        packages=_RAM_PACKAGES,
        checkpoints=("tag2text-swin-b.14m", "tag2text-tags"),
    ),
)

_registered: dict[str, Model] = {}


def models() -> Mapping[str, Model]:
    """Every known model by name: built-in ones, then plugins, then registered ones.

    A plugin that does not load is left out with a :class:`rasa.errors.RasaWarning`.
    """
    found = {model.name: model for model in _BUILT_IN}
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
    if any(model.name == known.name for known in _BUILT_IN):
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
    at_hand = {model.name: model for model in _BUILT_IN} | _registered
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
        A :class:`rasa.protocols.Tagger`, ``Detector`` or ``Segmenter``, by the model's role.

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
