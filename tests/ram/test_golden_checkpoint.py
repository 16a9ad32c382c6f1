"""Checkpoints against the published models: their manifests of keys, and the resizing of their loaders."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from rasa_ram import _names, builders
from rasa_ram._conversion import plan_conversion
from rasa_ram._detect import infer_config
from rasa_ram._relpos import resize_position_table
from rasa_ram.checkpoint import convert_state_dict
from rasa_ram.config import TextConfig
from tests.ram.reference import FAMILIES, reference_folder, tiny_config

# Largest difference of a resized table from the published code's (reference README, section 11: agreement 2e-7).
RESIZE_TOLERANCE = 1e-5


def manifests():
    """Every manifest of keys in the reference, by name; a full-size one is named like its builder."""
    folder = reference_folder()
    found = {
        path.stem.removeprefix("keys_"): json.loads(path.read_text()) for path in sorted(folder.glob("keys_*.json"))
    }
    tiny = json.loads((folder / "tiny_weights_check.json").read_text())
    assert len(found) + len(tiny) > 3, f"{folder} holds too few manifests to mean anything"
    return found | {f"tiny {name}": manifest for name, manifest in tiny.items()}


def meta_state(manifest):
    return {
        key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for key, (shape, dtype) in manifest["keys"].items()
    }


def config_of(name, state):
    if name.startswith("tiny "):
        return tiny_config(reference_folder(), name.removeprefix("tiny "), text=True)
    return infer_config({key: tuple(tensor.shape) for key, tensor in state.items()}, name=name)


def test_golden_manifests_are_inferred_as_the_configurations_of_the_builders():
    full = {name: manifest for name, manifest in manifests().items() if not name.startswith("tiny ")}
    for name, manifest in full.items():
        config = config_of(name, meta_state(manifest))
        make = getattr(builders, name)
        expected = make() if config.text is None else make(text=TextConfig())
        assert config == expected, name


def test_golden_every_key_is_converted_or_named():
    for name, manifest in manifests().items():
        state = meta_state(manifest)
        config = config_of(name, state)
        weights, aliases = _names.weight_table(config), _names.tied_aliases(config)
        assert aliases == dict(manifest["tied_aliases"]), name
        for key, (shape, _dtype) in manifest["keys"].items():
            kinds = [key in weights, key in aliases, _names.is_buffer(key)]
            assert sum(kinds) == 1, (name, key)
            assert key not in weights or weights[key].source_shape == tuple(shape), (name, key)
        assert weights.keys() | aliases.keys() <= manifest["keys"].keys(), name
        if "buffers" in manifest:
            assert {key for key in state if _names.is_buffer(key)} == set(manifest["buffers"])


def test_golden_every_key_is_named_when_the_captioner_is_left_out():
    for name, manifest in manifests().items():
        state = meta_state(manifest)
        config = replace(config_of(name, state), text=None)
        fates = plan_conversion(state, config).fates
        assert fates.keys() == state.keys()
        left_out = {key: fate for key, fate in fates.items() if fate.startswith("left out: ")}
        assert len(fates) - len(left_out) == len(_names.weight_table(config)), name
        for key, fate in left_out.items():
            kind = "buffer" if _names.is_buffer(key) else "captioner"
            assert kind in fate, (name, key)
            assert kind == "buffer" or re.match(r"(tag_encoder|text_decoder)\.", key), (name, key)


@pytest.mark.parametrize("text", [False, True])
def test_golden_converted_manifests_load_strictly(text):
    for name, manifest in manifests().items():
        state = meta_state(manifest)
        config = config_of(name, state)
        config = config if text else replace(config, text=None)
        converted = convert_state_dict(state, config, name=name)
        with torch.device("meta"):
            model = builders.build(config)
        expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
        assert {key: tensor.shape for key, tensor in converted.items()} == expected, name
        model.load_state_dict(converted, strict=True, assign=True)


def test_golden_ties_are_those_of_the_module():
    for name in ("ram", "tag2text"):
        model = builders.build(tiny_config(reference_folder(), name, text=True))
        names: dict[int, list[str]] = {}
        for key, parameter in model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(key)
        tied = {frozenset(keys) for keys in names.values() if len(keys) > 1}
        assert tied == {frozenset(pair) for pair in _names.our_aliases(model.config).items()}


def test_golden_resized_tables():
    with np.load(reference_folder() / "golden_relpos_resize.npz", allow_pickle=False) as file:
        cases = json.loads(str(file["cases"]))
        assert len(cases) > 2
        for i, case in enumerate(cases):
            resized = resize_position_table(torch.from_numpy(file[f"case{i}_in"]), case["dst_side"])
            error = np.abs(resized.numpy() - file[f"case{i}_out"]).max()
            assert error <= RESIZE_TOLERANCE, (case, error)


def test_golden_families_are_all_tried():
    tried = {config_of(name, meta_state(manifest)).family for name, manifest in manifests().items()}
    assert tried == set(FAMILIES.values())
