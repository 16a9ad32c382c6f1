"""From the tensors of a file to those of a model: what becomes of each key, and every reason to refuse."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rasa.errors import CheckpointError, RasaWarning
from rasa_ram import _names
from rasa_ram._detect import describe, describe_guess, guess, has_our_names
from rasa_ram._names import Shape, Weight
from rasa_ram._relpos import resize_position_table
from rasa_ram.config import RamConfig

# Values checked for NaN at once: 4 Mi float32 values and their flags take 20 MiB.
_CHECKED_AT_ONCE = 2**22

# Tensors with a row, or a block of rows, per tag.
_PER_TAG = frozenset({"label_embed", "label_embed.weight", "fc.W", "fc.b"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of every key of a file.

    Attributes:
        copies: Each weight of the model with the key it is read from.
        fates: Every key of the file: the name of ours that it becomes, or in words why it is left out.
    """

    copies: tuple[tuple[Weight, str], ...]
    fates: Mapping[str, str]


def plan_conversion(
    state: Mapping[str, Tensor], config: RamConfig, *, name: str = "state dict", ignore: Sequence[str] = ()
) -> Plan:
    """Account for every key of a state dict and every weight of a model.

    Args:
        state: Tensors by published names, or by ours.
        config: The model to be filled.
        name: What errors call the state dict: its file.
        ignore: Regular expressions of whole keys that the caller knows not to be needed.

    Raises:
        CheckpointError: If it is of another architecture or vocabulary, a key is missing, unknown or of a wrong
            shape, or a weight is no floating-point tensor.
    """
    match = _Match.of(state, config, name)
    fates = {key: match.fate(source, key, ignore) for source, key in match.keys.items()}
    chosen = {source: match.choose(source) for source in match.table}
    missing = [source for source, key in chosen.items() if key is None]
    surplus = [key for key, fate in fates.items() if not fate]
    match.check_architecture(missing=missing, surplus=surplus)
    match.check_missing(missing)
    match.check_surplus(surplus)
    copies = tuple((weight, chosen[source] or "") for source, weight in match.table.items())
    for weight, key in copies:
        match.check_tensor(weight, key, state[key])
    for alias, canonical in match.aliases.items():
        match.compare_copies(state, alias, canonical)
    return Plan(copies, fates)


def converted(state: Mapping[str, Tensor], plan: Plan, *, name: str = "state dict") -> Iterator[tuple[str, Tensor]]:
    """Convert the weights of a model one by one, in the order of the table; tied ones come once.

    Raises:
        CheckpointError: If a weight holds NaN or infinity.
    """
    for weight, key in plan.copies:
        tensor, where = state[key], f'{name}: "{key}"'
        check_finite(tensor, where)
        if weight.is_position_table:
            tensor = resize_position_table(tensor, math.isqrt(weight.shape[0]), name=where)
        yield weight.name, tensor.reshape(weight.shape)


def check_finite(tensor: Tensor, name: str) -> None:
    """Refuse a tensor with NaN or infinity; it is read in parts.

    Raises:
        CheckpointError: If it has one.
    """
    if tensor.is_meta:
        return
    for part in tensor.detach().reshape(-1).split(_CHECKED_AT_ONCE):
        if not torch.isfinite(part).all():
            raise CheckpointError(f"{name} holds NaN or infinity; the file is damaged, or its training diverged")


@dataclass(frozen=True, slots=True)
class _Match:
    """A file's tensors held against the table of a model.

    Attributes:
        name: What errors call the file.
        config: The model.
        shapes: Of the file's tensors, by its own keys.
        keys: Published name of today -> key of the file.
        table: Published name -> weight.
        aliases: Published alias -> published canonical name.
    """

    name: str
    config: RamConfig
    shapes: Mapping[str, Shape]
    keys: Mapping[str, str]
    table: Mapping[str, Weight]
    aliases: Mapping[str, str]

    @classmethod
    def of(cls, state: Mapping[str, Tensor], config: RamConfig, name: str) -> _Match:
        table, aliases = _names.weight_table(config), _names.tied_aliases(config)
        ours = {weight.name: weight.source for weight in table.values()} if has_our_names(state) else {}
        keys: dict[str, str] = {}
        for key in state:
            source = ours.get(key) or _names.current_name(key.removeprefix("captioner.") if ours else key)
            if source in keys:
                raise CheckpointError(f'{name} has both "{keys[source]}" and "{key}", two names of one tensor')
            keys[source] = key
        shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
        return cls(name, config, shapes, keys, table, aliases)

    def fate(self, source: str, key: str, ignore: Sequence[str]) -> str:
        """What becomes of a key; empty if nobody knows it."""
        canonical = self.aliases.get(source, source)
        if canonical in self.table:
            return self.table[canonical].name
        if _names.is_buffer(source):
            return "left out: a buffer that is computed"
        if self.config.text is None and self.config.family != "ram-plus" and _names.is_captioner_key(source):
            return "left out: part of the captioner, which was not asked for"
        return "left out: ignored by the caller" if any(re.fullmatch(p, key) for p in ignore) else ""

    def choose(self, source: str) -> str | None:
        """The file's key that counts for a weight, of those that stand for it."""
        copies = [source, *(alias for alias, canonical in self.aliases.items() if canonical == source)]
        copies.sort(key=_names.alias_wins, reverse=True)
        return next((self.keys[copy] for copy in copies if copy in self.keys), None)

    def check_architecture(self, *, missing: Sequence[str], surplus: Sequence[str]) -> None:
        """Refuse the weights of another model, before the many keys that differ are listed."""
        found, expected = guess(self.shapes), _comparable(self.config)
        differs = [field for field in expected if field in found and found[field] != expected[field]]
        # One lost tensor can make a RAM++ look like a RAM: the family alone does not decide.
        lost_one = differs == ["family"] and len(missing) <= 1 and not surplus
        if lost_one or (not differs and ("family" in found or len(missing) < len(self.table) / 2)):
            return
        fields = ", ".join(f"{field} is {found[field]}, not {expected[field]}" for field in differs)
        raise CheckpointError(
            f"{self.name} {describe_guess(self.shapes)}; expected {describe(self.config)}"
            f"{f' ({fields})' if fields else ''}; give the model that the file was trained for"
        )

    def check_missing(self, missing: Sequence[str]) -> None:
        """Refuse a file that leaves a weight without a value."""
        if not missing:
            return
        ours = has_our_names(self.shapes)
        names = _some(self.table[source].name if ours else source for source in missing)
        cure = "the file is incomplete: fetch or convert it again"
        if all(_names.is_captioner_key(source) for source in missing):
            cure = "it has no captioner: load it with text=False"
        raise CheckpointError(f"{self.name} lacks {names} of {describe(self.config)}; {cure}")

    def check_surplus(self, surplus: Sequence[str]) -> None:
        """Refuse a file with a tensor that nobody knows."""
        if surplus:
            raise CheckpointError(
                f"{self.name} holds {_some(surplus)}, which {describe(self.config)} does not have; "
                "if you know that it is not needed, name it in ignore"
            )

    def check_tensor(self, weight: Weight, key: str, tensor: Tensor) -> None:
        """Refuse a tensor of another shape or of integers."""
        shape = tuple(tensor.shape)
        if not tensor.is_floating_point():
            raise CheckpointError(f'{self.name}: "{key}" must hold floating-point numbers, got {tensor.dtype}')
        resized = weight.is_position_table and shape[1:] == weight.shape[1:]
        if shape in {weight.shape, weight.source_shape} or resized:
            return
        if weight.source in _PER_TAG:
            raise self._vocabulary_error(weight, key, shape)
        raise CheckpointError(f'{self.name}: "{key}" must have shape {weight.shape}, got {shape}')

    def _vocabulary_error(self, weight: Weight, key: str, shape: Shape) -> CheckpointError:
        each = "" if self.config.descriptions == 1 else f" with {self.config.descriptions} descriptions each"
        return CheckpointError(
            f'{self.name}: "{key}" has shape {shape}, expected {weight.source_shape} for {self.config.num_tags} tags'
            f"{each}; give the number of tags that the file was trained with"
        )

    def compare_copies(self, state: Mapping[str, Tensor], alias: str, canonical: str) -> None:
        """Warn where a file has two values for one tensor; the one that the published code keeps counts."""
        if alias not in self.keys or canonical not in self.keys:
            return
        one, other = state[self.keys[alias]], state[self.keys[canonical]]
        if one.shape != other.shape:
            raise CheckpointError(
                f'{self.name}: "{self.keys[alias]}" must have the shape of "{self.keys[canonical]}", '
                f"{tuple(other.shape)}, got {tuple(one.shape)}"
            )
        if one.is_meta or other.is_meta or one.data_ptr() == other.data_ptr() or torch.equal(one, other):
            return
        kept, dropped = (alias, canonical) if _names.alias_wins(alias) else (canonical, alias)
        warnings.warn(
            f'{self.name}: "{self.keys[dropped]}" differs from "{self.keys[kept]}", which is the same tensor in '
            f"the published model; the latter is used, as the published code does",
            RasaWarning,
            stacklevel=4,
        )


def _comparable(config: RamConfig) -> dict[str, object]:
    """What a configuration shares with a guess, less what a table of weights is resized for or told by its shape."""
    vision = config.vision
    return {
        "family": config.family,
        "vision.embed_dim": vision.embed_dim,
        "vision.depths": tuple(vision.depths),
        "vision.heads": tuple(vision.heads),
        "layers": config.layers,
        "width": config.width,
    }


def _some(names: Iterable[str]) -> str:
    listed = [f'"{name}"' for name in names]
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more
