"""The model that a training begins with, and a strict account of where each of its weights came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rasa.errors import ConfigError, UnknownModelError
from rasa_ram import builders
from rasa_ram._loading import find_weights, model_config
from rasa_ram.checkpoint import convert_file, read_checkpoint, read_config
from rasa_ram.config import RamConfig
from rasa_ram.modeling.ram import Ram
from rasa_ram.published import PUBLISHED, load_vocabulary
from rasa_ram.training.backbones import read_bert, read_swin
from rasa_ram.training.fresh_weights import draw_model
from rasa_ram.training.label_vectors import count_descriptions, encode_vocabulary, read_descriptions, read_vectors
from rasa_ram.training.model_settings import ModelSettings
from rasa_ram.vocabulary import Vocabulary
from rasa_ram.vocabulary_files import read_vocabulary

if TYPE_CHECKING:  # open_clip is not needed where label vectors are in a file
    from rasa_ram.text_encoder import TextEncoder

# One row per tag and description: of another vocabulary, they mean other things.
_VECTORS = "label_embedding.vectors"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Start:
    """What a training begins with.

    Attributes:
        model: On the CPU, float32, in training mode, with what is frozen frozen.
        vocabulary: The model's tags, in the order of its rows.
        loaded: What was read, to the names of the weights that it gave; a later source replaces an earlier one's.
        fresh: Names of the weights that are still as they were drawn.
        frozen: Names of the weights that are not trained.
    """

    model: Ram
    vocabulary: Vocabulary
    loaded: Mapping[str, tuple[str, ...]]
    fresh: tuple[str, ...]
    frozen: tuple[str, ...]

    def summary(self) -> list[str]:
        """One line for each source, for what is fresh, and for what is frozen."""
        lines = [f"{len(names)} weights from {source}" for source, names in self.loaded.items() if names]
        lines += [f"{len(self.fresh)} weights fresh{_parts(self.fresh)}"] if self.fresh else []
        return lines + ([f"{len(self.frozen)} weights frozen{_parts(self.frozen)}"] if self.frozen else [])


@dataclass(slots=True)
class _Filling:
    """A fresh model while sources fill it."""

    model: Ram
    loaded: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def take(self, source: str, tensors: Mapping[str, Tensor]) -> None:
        own = dict(self.model.named_parameters())  # tied ones once, by their canonical names
        given = {name: tensor for name, tensor in tensors.items() if name in own}
        with torch.no_grad():
            for name, tensor in given.items():
                target = own[name]
                if len(tensor) < len(target) if tensor.ndim else False:
                    target = target[: len(tensor)]  # BERT's words, before [DEC] and [ENC]
                target.copy_(tensor)
        for earlier, names in self.loaded.items():
            self.loaded[earlier] = tuple(name for name in names if name not in given)
        self.loaded[source] = tuple(given)


def read_tags(vocabulary: str) -> Vocabulary:
    """The vocabulary of a published model by its name, or of a file.

    Raises:
        ConfigError: If there is neither.
        FormatError: If the file is malformed.
        WeightsError: If a published list cannot be fetched.
    """
    path = Path(vocabulary)
    if path.is_file():
        return read_vocabulary(path)
    try:
        return load_vocabulary(vocabulary)
    except UnknownModelError as error:
        raise ConfigError(f"model.vocabulary: there is no file {vocabulary}, and {error}") from error


def count_tags(vocabulary: str) -> int:
    """Tags of :func:`read_tags`, without fetching anything: those of a published model are known.

    Raises:
        ConfigError: If there is neither a file nor a published model of this name.
        FormatError: If the file is malformed.
    """
    if Path(vocabulary).is_file() or vocabulary not in PUBLISHED:
        return len(read_tags(vocabulary))
    return model_config(vocabulary).num_tags


def model_sizes(settings: ModelSettings, num_tags: int) -> RamConfig:
    """The configuration that the settings and the vocabulary's size come to.

    Raises:
        ConfigError: If the sizes do not fit each other.
    """
    sizes = settings.sizes or builders.architecture(settings.architecture or "")
    sizes = replace(sizes, num_tags=num_tags, text=settings.text if settings.captioner else None)
    if settings.descriptions is None:
        return sizes
    if sizes.family != "ram-plus":
        raise ConfigError(f"model.descriptions is for ram-plus, which weighs them; {sizes.family} has one vector a tag")
    return replace(sizes, descriptions=count_descriptions(settings.descriptions))


def initialise(
    settings: ModelSettings, *, seed: int = 0, load_encoder: Callable[[], TextEncoder] | None = None
) -> Start:
    """Build the model of a recipe: fresh weights first, and over them what each of its sources holds.

    In this order: ``init``, ``backbone``, ``text_init``, label vectors. Each source must fit in every tensor.

    Args:
        settings: Of the recipe.
        seed: Of the fresh weights.
        load_encoder: Gives the text encoder of label vectors; None loads
            ``settings.text_encoder`` where it is needed.

    Raises:
        ConfigError: If the settings contradict each other or name nothing.
        CheckpointError: If a file of weights is damaged or does not fit.
        WeightsError: If something has to be fetched and cannot be.
    """
    vocabulary = read_tags(settings.vocabulary)
    config = model_sizes(settings, len(vocabulary))
    _check(settings, config)
    filling = _Filling(draw_model(config, seed=seed))
    if settings.init is not None:
        filling.take(f"init {settings.init}", _whole_model(settings, config))
    if settings.backbone is not None:
        filling.take(f"backbone {settings.backbone}", read_swin(settings.backbone, config.vision))
    if settings.text_init is not None:
        filling.take(f"text_init {settings.text_init}", read_bert(settings.text_init, config))
    _fill_vectors(filling, settings, vocabulary, load_encoder or (lambda: _encoder(settings)))
    frozen = frozen_names(filling.model, settings.freeze)
    known = {name for names in filling.loaded.values() for name in names}
    fresh = tuple(name for name, _ in filling.model.named_parameters() if name not in known)
    return Start(model=filling.model, vocabulary=vocabulary, loaded=filling.loaded, fresh=fresh, frozen=frozen)


def _check(settings: ModelSettings, config: RamConfig) -> None:
    if settings.text_init is not None and config.text is None:
        raise ConfigError("model.text_init is for the captioner, and there is none; set model.captioner = true")
    if config.family == "tag2text" and settings.label_vectors is not None:
        raise ConfigError("model.label_vectors: tag2text learns its label table; leave the key out")


def _whole_model(settings: ModelSettings, config: RamConfig) -> dict[str, Tensor]:
    try:
        path, known = find_weights(str(settings.init), convert=convert_file)
    except UnknownModelError as error:
        raise ConfigError(f"model.init: {error}") from error
    held = known or read_config(path)
    source = replace(
        config, num_tags=held.num_tags, descriptions=held.descriptions, text=config.text if held.text else None
    )
    tensors = read_checkpoint(path, source)
    if (held.num_tags, held.descriptions) == (config.num_tags, config.descriptions):
        return tensors
    if config.family == "tag2text":
        raise ConfigError(
            f"model.init: {path} knows {held.num_tags} tags and the vocabulary has {config.num_tags}; a tag2text "
            "learns them one by one: take its own vocabulary, or begin without init"
        )
    return {name: tensor for name, tensor in tensors.items() if name != _VECTORS}


def _fill_vectors(
    filling: _Filling, settings: ModelSettings, vocabulary: Vocabulary, load_encoder: Callable[[], TextEncoder]
) -> None:
    config = filling.model.config
    if config.family == "tag2text":
        return
    known = {name for names in filling.loaded.values() for name in names}
    rows = config.num_tags * config.descriptions
    if settings.label_vectors is not None:
        vectors, source = read_vectors(settings.label_vectors, rows=rows), f"label_vectors {settings.label_vectors}"
    elif _VECTORS in known:
        return
    else:
        described = settings.descriptions and read_descriptions(settings.descriptions, vocabulary)
        if config.family == "ram-plus" and not described:
            raise ConfigError(
                f"ram-plus needs {config.descriptions} descriptions of each tag: set model.descriptions to a JSON file "
                "of them, or model.label_vectors to a file of their vectors"
            )
        vectors = encode_vocabulary(vocabulary, described or None, load_encoder=load_encoder)
        source = "the text encoder"
    if vectors.shape[1] != config.label_width:
        raise ConfigError(f"label vectors have {vectors.shape[1]} channels, and the model {config.label_width}")
    filling.take(source, {_VECTORS: vectors})


def frozen_names(model: Ram, prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Freeze the parts of a model that begin with one of ``prefixes``, and name all that is not trained.

    Raises:
        ConfigError: If a prefix means nothing, or nothing would be left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        if not any(_under(name, prefix) for name in names):
            parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise ConfigError(f'model.freeze: no weight begins with "{prefix}"; the parts are {parts}')
    for name, parameter in model.named_parameters():
        if any(_under(name, prefix) for prefix in prefixes):
            parameter.requires_grad_(requires_grad=False)
    frozen = tuple(name for name, parameter in model.named_parameters() if not parameter.requires_grad)
    if len(frozen) == len(names):
        raise ConfigError("model.freeze leaves nothing to train; take a part out")
    return frozen


def _under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _parts(names: tuple[str, ...]) -> str:
    counts: dict[str, int] = {}
    for name in names:
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + 1
    return f" ({', '.join(f'{part} {count}' for part, count in counts.items())})"


def _encoder(settings: ModelSettings) -> TextEncoder:
    # Either is heavy to import, and seldom needed.
    if settings.text_encoder == "minilm":
        from rasa_ram.sentence_encoder import load_sentence_encoder  # noqa: PLC0415

        return load_sentence_encoder()
    from rasa_ram.text_encoder import load_text_encoder  # noqa: PLC0415

    return load_text_encoder()
