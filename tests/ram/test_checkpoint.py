"""Checkpoints of tiny models with random weights: every way in, every reason to refuse, and the slim file."""

import hashlib
import json
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

import rasa_ram
from rasa import weights
from rasa.errors import CheckpointError, InputError, OutputError, RasaWarning, UnknownModelError, WeightsError
from rasa_ram import _loading, _names
from rasa_ram._conversion import plan_conversion
from rasa_ram._detect import infer_config
from rasa_ram._files import config_from_json, config_to_json
from rasa_ram._relpos import resize_position_table
from rasa_ram.builders import build, ram_swin_l_384
from rasa_ram.checkpoint import convert_file, convert_state_dict, load, read_checkpoint, read_config
from rasa_ram.config import RamConfig, SwinConfig, TextConfig

ROOT = Path(__file__).parents[2]
VISION = SwinConfig(image_size=32, embed_dim=8, depths=(2, 1), heads=(1, 2), window=4)
# Heads of 64 channels, as in all published captioners.
TEXT = TextConfig(vocab_size=11, width=64, layers=3, heads=1, intermediate=16, max_positions=6)
SIZES = {"vision": VISION, "num_tags": 5, "label_width": 8, "width": 64, "intermediate": 16}
CONFIGS = {
    "ram": RamConfig(family="ram", text=TEXT, **SIZES),
    "ram-plus": RamConfig(family="ram-plus", descriptions=51, **SIZES),
    "tag2text": RamConfig(family="tag2text", text=TEXT, **SIZES | {"label_width": 512}),  # it has no use for it
}
RAM = CONFIGS["ram"]
HEAD = "tagging_head.encoder.layer.0.crossattention.self.query.weight"
TIED = HEAD.replace("tagging_head", "tag_encoder")
WORDS = "text_decoder.bert.embeddings.word_embeddings.weight"
OUTPUT = "text_decoder.cls.predictions.decoder.weight"


def published(config, seed=0):
    """A state dict as the published code writes it: weights, their aliases, and computed buffers."""
    generator = torch.Generator().manual_seed(seed)
    table = _names.weight_table(config)
    state = {key: torch.randn(weight.source_shape, generator=generator) for key, weight in table.items()}
    state |= {alias: state[key] for alias, key in _names.tied_aliases(config).items()}
    window = config.vision.window
    for stage, depth in enumerate(config.vision.depths):
        for block in range(depth):
            prefix = f"visual_encoder.layers.{stage}.blocks.{block}"
            state[f"{prefix}.attn.relative_position_index"] = torch.zeros(window**2, window**2, dtype=torch.int64)
    windows = (config.vision.image_size // config.vision.patch_size // window) ** 2
    state["visual_encoder.layers.0.blocks.1.attn_mask"] = torch.zeros(windows, window**2, window**2)
    if config.text is not None:
        for part in ("tag_encoder", "text_decoder.bert"):
            state[f"{part}.embeddings.position_ids"] = torch.arange(config.text.max_positions)[None]
    return state


def save(path, state, **extra):
    torch.save({"model": state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "epoch": 4, **extra}, path)
    return path


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.fixture
def ram_file(tmp_path):
    return save(tmp_path / "ram.pth", published(RAM), config={"image_size": 32})


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("text", [True, False])
def test_every_published_weight_reaches_the_model(family, text):
    config = CONFIGS[family] if text else replace(CONFIGS[family], text=None)
    state = published(CONFIGS[family])
    model = build(config)
    model.load_state_dict(convert_state_dict(state, config), strict=True)
    loaded = model.state_dict()
    for key, weight in _names.weight_table(config).items():
        assert torch.equal(loaded[weight.name], state[key].reshape(weight.shape)), key


@pytest.mark.parametrize("family", CONFIGS)
def test_every_key_has_a_fate_in_words(family):
    config, state = replace(CONFIGS[family], text=None), published(CONFIGS[family])
    fates = plan_conversion(state, config).fates
    assert fates.keys() == state.keys()
    names = {weight.name for weight in _names.weight_table(config).values()}
    left_out = {key: fate for key, fate in fates.items() if fate not in names}
    for key, fate in left_out.items():
        what = "captioner" if key.startswith(("tag_encoder.", "text_decoder.")) else "buffer"
        what = "buffer" if key.endswith("position_ids") else what
        assert what in fate, (key, fate)
    assert len(state) == len(left_out) + len(names)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_model_is_told_from_its_tensors(family):
    config, state = CONFIGS[family], published(CONFIGS[family])
    assert infer_config({key: tuple(tensor.shape) for key, tensor in state.items()}) == config
    ours = convert_state_dict(state, config)
    mask = "visual_encoder.layers.0.blocks.1.attn_mask"
    assert infer_config({key: tuple(t.shape) for key, t in {**ours, mask: state[mask]}.items()}) == config


def test_shapes_that_do_not_tell_the_image_size_are_refused(tmp_path):
    state = {key: tensor for key, tensor in published(RAM).items() if "attn_mask" not in key}
    path = save(tmp_path / "no-mask.pth", state)
    with pytest.raises(
        CheckpointError, match=r"no-mask\.pth does not show .* image_size cannot be told; pass the conf"
    ):
        read_config(path)
    assert load(path, config=RAM).config == replace(RAM, text=None)


def test_all_files_of_the_same_weights_read_alike(tmp_path, ram_file):
    state = published(RAM)
    expected = convert_state_dict(state, RAM)
    model = build(RAM)
    model.load_state_dict(expected)
    torch.save(state, tmp_path / "plain.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    slim = convert_file(ram_file, tmp_path / "slim.safetensors")
    for path in (ram_file, tmp_path / "plain.pth", tmp_path / "old.pth", tmp_path / "ours.pth", slim):
        assert_same(read_checkpoint(path, RAM), expected)
    assert_same(read_checkpoint(slim, replace(RAM, text=None)), convert_state_dict(state, replace(RAM, text=None)))


def test_old_names_of_parts_are_known():
    state = published(RAM)
    old = {key.replace("tagging_head.", "vision_multi."): tensor for key, tensor in state.items()}
    assert old.keys() != state.keys()
    assert_same(convert_state_dict(old, RAM), convert_state_dict(state, RAM))
    with pytest.raises(CheckpointError, match=r'both ".*" and ".*", two names of one tensor'):
        convert_state_dict(old | state, RAM)


@pytest.mark.parametrize(("wins", "loses"), [(HEAD, TIED), (OUTPUT, WORDS)])
def test_of_two_values_for_a_tied_tensor_the_one_the_published_code_keeps_counts(wins, loses):
    state = published(RAM)
    other = {**state, loses: state[loses] + 1}
    with pytest.warns(RasaWarning, match=f'"{loses}" differs from "{wins}"'):
        converted = convert_state_dict(other, RAM)
    assert_same(converted, convert_state_dict(state, RAM))


@pytest.mark.parametrize("lost", [HEAD, TIED, OUTPUT, WORDS])
def test_one_name_of_a_tied_tensor_is_enough(lost):
    state = published(RAM)
    expected = convert_state_dict(state, RAM)
    assert_same(convert_state_dict({key: tensor for key, tensor in state.items() if key != lost}, RAM), expected)


@pytest.mark.parametrize(("side", "window"), [(24, 3), (40, 5)])
def test_tables_of_another_window_are_resized(side, window):
    other = replace(RAM, vision=replace(VISION, image_size=side, window=window))
    state = published(other)
    converted = convert_state_dict(state, RAM)
    build(RAM).load_state_dict(converted, strict=True)
    for key, weight in _names.weight_table(RAM).items():
        source = state[key]
        expected = resize_position_table(source, 7) if weight.is_position_table else source.reshape(weight.shape)
        assert torch.equal(converted[weight.name], expected), key


@pytest.mark.parametrize(("old", "new"), [(5, 13), (13, 7), (13, 23)])
def test_resizing_keeps_constants_and_symmetry(old, new):
    constant = torch.full((old * old, 2), 0.75)
    torch.testing.assert_close(resize_position_table(constant, new), torch.full((new * new, 2), 0.75))
    table = torch.randn(old, old, 3, generator=torch.Generator().manual_seed(1))
    flipped = resize_position_table(table.flip(0).reshape(-1, 3), new)
    torch.testing.assert_close(
        flipped, resize_position_table(table.reshape(-1, 3), new).reshape(new, new, 3).flip(0).reshape(-1, 3)
    )
    turned = resize_position_table(table.transpose(0, 1).reshape(-1, 3), new)
    plain = resize_position_table(table.reshape(-1, 3), new).reshape(new, new, 3)
    torch.testing.assert_close(turned, plain.transpose(0, 1).reshape(-1, 3))


def test_a_table_that_is_linear_in_its_own_coordinates_stays_so():
    # 1 + q + q^2 = 5 has the solution q = (sqrt(17) - 1) / 2 = 1.5616, beyond the largest ratio of 1.5.
    for new_radius, ratio in ((4, (13**0.5 - 1) / 2), (5, 1.5)):
        steps = torch.tensor([1.0, 1 + ratio, 1 + ratio + ratio**2], dtype=torch.float64)
        known = torch.cat([-steps.flip(0), torch.zeros(1, dtype=torch.float64), steps])
        table = (3 * known[:, None] + known[None, :]).reshape(49, 1)
        wanted = torch.arange(-new_radius, new_radius + 1).double().clamp(known[0], known[-1])
        expected = (3 * wanted[:, None] + wanted[None, :]).reshape(-1, 1).float()
        resized = resize_position_table(table, 2 * new_radius + 1)
        torch.testing.assert_close(resized, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(24, 2), (16, 2), (25,), (25, 2, 1)])
def test_a_table_of_no_square_window_is_refused(shape):
    with pytest.raises(CheckpointError, match="odd square number of rows, got shape"):
        resize_position_table(torch.zeros(shape), 13)
    with pytest.raises(CheckpointError, match="window 2 is too small to be resized"):
        resize_position_table(torch.zeros(9, 2), 13)


# What is refused


def without(*keys):
    return lambda state: {key: tensor for key, tensor in state.items() if key not in keys}


def changed(key, tensor):
    return lambda state: {**state, key: tensor}


BAD_STATES = {
    "missing": (without("fc.weight"), r'lacks "fc\.weight" of RAM with .*incomplete'),
    "many missing": (
        without("fc.weight", "fc.bias", "image_proj.bias", "image_proj.weight"),
        r'lacks "wordvec|lacks "image_proj\.weight", "image_proj\.bias", "fc\.weight" and 1 more',
    ),
    "a block without its norm": (
        without("visual_encoder.layers.0.blocks.1.norm1.weight"),
        r'lacks "visual_encoder\.layers\.0\.blocks\.1\.norm1\.weight"',
    ),
    "both names of a tied weight missing": (without(HEAD, TIED), 'lacks "tagging_head'),
    "surplus": (changed("temperature", torch.ones(1)), 'holds "temperature", which RAM .* name it in ignore'),
    "surplus of the captioner": (changed("tag_encoder.pooler.bias", torch.ones(1)), 'holds "tag_encoder.pooler.bias"'),
    "tags": (
        changed("label_embed", torch.zeros(4, 8)),
        r'"label_embed" has shape \(4, 8\), expected \(5, 8\) for 5 tags',
    ),
    "shape": (changed("fc.bias", torch.zeros(2)), r'"fc\.bias" must have shape \(1,\), got \(2,\)'),
    "heads": (
        changed("visual_encoder.layers.1.blocks.0.attn.relative_position_bias_table", torch.zeros(49, 3)),
        r"vision\.heads is \(1, 3\), not \(1, 2\)",
    ),
    "alias": (changed(TIED, torch.zeros(3, 3)), r"must have the shape of .*, \(64, 64\), got \(3, 3\)"),
    "NaN": (changed("fc.bias", torch.tensor([torch.nan])), r'"fc\.bias" holds NaN or infinity; the file is damaged'),
    "infinity": (changed("image_proj.bias", torch.full((8,), -torch.inf)), r'"image_proj\.bias" holds NaN or inf'),
    "integers": (changed("fc.bias", torch.ones(1, dtype=torch.int64)), "floating-point numbers, got torch.int64"),
    "empty": (lambda _: {"a": torch.ones(1)}, 'is no RAM, RAM\\+\\+ or Tag2Text: it holds 1 tensors, such as "a"'),
}


@pytest.mark.parametrize("case", BAD_STATES)
def test_a_state_dict_that_does_not_fit_is_refused_with_its_file_and_key(case, tmp_path):
    spoil, message = BAD_STATES[case]
    path = save(tmp_path / "bad.pth", spoil(published(RAM)))
    dest = tmp_path / "slim" / "model.safetensors"
    for read in (
        lambda: read_checkpoint(path, RAM),
        lambda: convert_file(path, dest, RAM),
        lambda: load(path, config=RAM, text=True),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            read()
        assert "bad.pth" in str(caught.value)
    assert not list(tmp_path.glob("slim/*")), "nothing may be left of a refused file"


@pytest.mark.parametrize("held", CONFIGS)
@pytest.mark.parametrize("asked", CONFIGS)
def test_another_family_is_refused_by_name(held, asked):
    if held == asked:
        return
    names = {"ram": "RAM", "ram-plus": r"RAM\+\+", "tag2text": "Tag2Text"}
    with pytest.raises(CheckpointError, match=f"looks like {names[held]} with .* expected {names[asked]} with"):
        convert_state_dict(published(CONFIGS[held]), CONFIGS[asked])


def test_another_size_is_refused_by_name():
    with pytest.raises(
        CheckpointError, match=r"expected RAM with Swin-L at 384 pixels \(vision\.embed_dim is 8, not 192"
    ):
        convert_state_dict(published(RAM), ram_swin_l_384())


def test_ram_plus_without_its_scale_lacks_a_key_and_is_not_taken_for_ram():
    state = published(CONFIGS["ram-plus"])
    with pytest.raises(CheckpointError, match='lacks "reweight_scale"'):
        convert_state_dict(without("reweight_scale")(state), CONFIGS["ram-plus"])


def test_what_the_caller_names_is_ignored_and_nothing_else():
    state = changed("clip.logit_scale", torch.ones(1))(published(RAM))
    assert_same(convert_state_dict(state, RAM, ignore=[r"clip\..*"]), convert_state_dict(published(RAM), RAM))
    with pytest.raises(CheckpointError, match=r'holds "clip\.logit_scale"'):
        convert_state_dict(state, RAM, ignore=["clip"])
    with pytest.raises(CheckpointError, match=r'lacks "fc\.bias"'):
        convert_state_dict(without("fc.bias")(state), RAM, ignore=[".*"])


class _Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, zipped):
    flag, path = tmp_path / "ran", tmp_path / "evil.pth"
    torch.save({"model": published(RAM), "run": _Runs(flag)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=r"evil\.pth is refused: .* could run code .*fetch the weights from their publ"
    ):
        load(path)
    assert not flag.exists()
    for protocol, message in ((2, r"is refused: .*GLOBAL getattr"), (4, r"is no file of weights, or damaged")):
        path.write_bytes(pickle.dumps(_Runs(flag), protocol=protocol))
        with pytest.raises(CheckpointError, match=rf"evil\.pth {message}"):
            load(path)
        assert not flag.exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path, ram_file, kind, share):
    path = tmp_path / {"zip": "whole.pth", "old": "whole.pth", "safetensors": "whole.safetensors"}[kind]
    if kind == "safetensors":
        convert_file(ram_file, path, RAM)
    else:
        torch.save({"model": published(RAM)}, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"whole\.(pth|safetensors) is .*(fetch|convert) it again"):
        read_checkpoint(path, RAM)


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_damage_anywhere_is_a_typed_error_or_harmless(tmp_path, ram_file, kind):
    path = tmp_path / "whole"
    if kind == "safetensors":
        convert_file(ram_file, path, RAM)
    else:
        torch.save({"model": published(RAM)}, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    refused = 0
    # The header of a safetensors file, the pickle of the others, and a stride over all the rest.
    for position in [*range(0, 400, 16), *range(400, len(whole), len(whole) // 40)]:
        damaged = bytearray(whole)
        damaged[position] ^= 0xA5
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # two values of a tied tensor; an unusual pickle protocol
                read_checkpoint(path, RAM)
        except CheckpointError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<!DOCTYPE html><html>not found</html>", b"PK\x03\x04rest", b"\x80\x02."]
)
def test_files_of_something_else_are_refused(tmp_path, content):
    path = tmp_path / "page.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"page\.pth .*fetch it again"):
        load(path)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ([1, 2], "holds no state dict"),
        ({}, "holds no state dict"),
        ({"model": {}}, "holds no state dict"),
        ({"fc.bias": 3.0}, "'fc.bias' must name a tensor, got float"),
        ({"model": {3: torch.ones(1)}}, "3 must name a tensor, got Tensor"),
    ],
)
def test_a_file_without_a_state_dict_is_refused(tmp_path, saved, message):
    path = tmp_path / "odd.pth"
    torch.save(saved, path)
    with pytest.raises(CheckpointError, match=message):
        read_config(path)


def test_absent_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read the weights .*no\.pth: No such file"):
        read_checkpoint(tmp_path / "no.pth", RAM)
    with pytest.raises(CheckpointError, match="cannot read the weights"):
        read_checkpoint(tmp_path, RAM)
    with pytest.raises(UnknownModelError, match=r'"ram-swin-l" is neither .* did you mean "ram-swin-l\.14m"'):
        load("ram-swin-l")


# The slim file


@pytest.mark.parametrize("family", CONFIGS)
def test_a_slim_file_holds_each_weight_once_and_says_where_it_comes_from(tmp_path, family):
    config = CONFIGS[family]
    source = save(tmp_path / "source.pth", published(config))
    slim = convert_file(source, tmp_path / "new" / "folder" / "slim.safetensors")
    with safe_open(slim, framework="pt") as file:
        metadata = file.metadata()
        held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    weights_ = _names.weight_table(config).values()
    assert held.keys() == {weight.name for weight in weights_}
    assert {tensor.dtype for tensor in held.values()} == {torch.float32}
    assert slim.stat().st_size - sum(4 * tensor.numel() for tensor in held.values()) < 200 * len(held)
    assert metadata["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert config_from_json(metadata["config"], name="") == config
    assert read_config(slim) == config


def test_the_same_source_gives_the_same_bytes(tmp_path, ram_file):
    one = convert_file(ram_file, tmp_path / "one.safetensors").read_bytes()
    assert convert_file(ram_file, tmp_path / "two.safetensors").read_bytes() == one
    again = convert_file(tmp_path / "one.safetensors", tmp_path / "three.safetensors")
    assert_same(read_checkpoint(again, RAM), read_checkpoint(tmp_path / "one.safetensors", RAM))


def test_a_slim_file_without_the_captioner(tmp_path, ram_file):
    tagging = replace(RAM, text=None)
    slim = convert_file(ram_file, tmp_path / "slim.safetensors", tagging)
    assert read_config(slim) == tagging
    with pytest.raises(
        CheckpointError, match=r"slim\.safetensors holds RAM .* without a captioner; load it with text=F"
    ):
        load(slim, text=True)
    with pytest.raises(CheckpointError, match=r'lacks "captioner\.tag_encoder.* no captioner: load it with text=False'):
        read_checkpoint(slim, RAM)


def test_half_precision_becomes_float32(tmp_path):
    state = {key: t.half() if t.is_floating_point() else t for key, t in published(RAM).items()}
    slim = convert_file(save(tmp_path / "half.pth", state), tmp_path / "slim.safetensors")
    expected = {name: tensor.float() for name, tensor in convert_state_dict(state, RAM).items()}
    assert_same(read_checkpoint(slim, RAM), expected)


def test_a_failed_conversion_leaves_the_old_file_and_nothing_else(tmp_path, ram_file):
    dest = tmp_path / "out" / "slim.safetensors"
    before = convert_file(ram_file, dest).read_bytes()
    # The last tensor of the file: all others have been written by then.
    last = list(_names.weight_table(RAM))[-1]
    bad = save(tmp_path / "bad.pth", changed(last, torch.full((64,), torch.nan))(published(RAM)))
    with pytest.raises(CheckpointError, match="NaN"):
        convert_file(bad, dest)
    assert dest.read_bytes() == before
    assert [path.name for path in dest.parent.iterdir()] == [dest.name]


def test_destinations_that_cannot_be_written(tmp_path, ram_file):
    with pytest.raises(InputError, match=r"ram\.pth is the file to be converted"):
        convert_file(ram_file, ram_file)
    with pytest.raises(OutputError, match=r"cannot write .*ram\.pth.*slim: "):
        convert_file(ram_file, ram_file / "slim")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*folder: "):
        convert_file(ram_file, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "ram.pth"]
    with pytest.raises(UnknownModelError, match=r'unknown model "ram-swin-l"; did you mean "ram-swin-l\.14m"'):
        convert_file(ram_file, tmp_path / "slim", "ram-swin-l")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "malformed configuration"),
        ("[]", "RamConfig must be a table"),
        ('{"vision": {}, "hats": 1}', 'unknown key "hats"'),
        ('{"family": "ram"}', "malformed configuration: 'vision'"),
        ('{"family": "ram", "vision": {"windows": 3}}', 'unknown key "windows"'),
        (config_to_json(RAM).replace('"family": "ram"', '"family": "sam"'), "family must be one of"),
    ],
)
def test_a_malformed_configuration_is_refused(tmp_path, ram_file, text, message):
    folder = tmp_path / "model"
    convert_file(ram_file, folder / "model.safetensors")
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=rf"config\.json carries a malformed configuration: .*{message}|{message}"
    ):
        load(folder)


MEMORY_SCRIPT = """
import re, sys
from pathlib import Path
from rasa_ram.checkpoint import convert_file, load

def peak():  # bytes; getrusage would count what the process was before it became this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

before = peak()
if sys.argv[3] == "convert":
    convert_file(sys.argv[1], sys.argv[2])
else:
    load(sys.argv[2], text=True)
print(peak() - before)
"""


@pytest.mark.slow
def test_conversion_needs_less_than_twice_the_slim_size_and_loading_no_third(tmp_path):
    if sys.platform != "linux":
        pytest.skip("the peak is read from /proc, which only Linux has")
    vision = replace(VISION, embed_dim=64, depths=(2, 4))
    config = replace(RAM, vision=vision, num_tags=4585, label_width=512, width=768, intermediate=3072)
    config = replace(config, text=replace(TEXT, vocab_size=20_000, width=768, heads=12, intermediate=3072))
    state = published(config)
    moments = {i: {"exp_avg": t.clone(), "exp_avg_sq": t.clone()} for i, t in enumerate(state.values())}
    source = tmp_path / "big.pth"
    torch.save({"model": state, "optimizer": {"state": moments}}, source)
    del state, moments
    slim = tmp_path / "slim.safetensors"
    peaks = {}
    for action in ("convert", "load"):
        command = [sys.executable, "-c", MEMORY_SCRIPT, str(source), str(slim), action]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)})
        peaks[action] = int(done.stdout)
    size = slim.stat().st_size
    assert size > 200e6
    assert source.stat().st_size > 2.9 * size
    # A peak of next to nothing would mean that it was not measured.
    assert 0.5 * size < peaks["convert"] < 2 * size, f"{peaks['convert'] / size:.3f} times the slim size"
    # The mapped file and the model; no random weights that would be thrown away.
    assert size < peaks["load"] < 2.5 * size, f"{peaks['load'] / size:.3f} times the slim size"


# Loading


@pytest.mark.parametrize("family", CONFIGS)
def test_a_loaded_model_computes_what_a_filled_one_does(tmp_path, family):
    config = CONFIGS[family]
    state = published(config)
    slim = convert_file(save(tmp_path / "source.pth", state), tmp_path / "slim.safetensors")
    has_text = config.text is not None
    filled = build(config)
    filled.load_state_dict(convert_state_dict(state, config), strict=True)
    rng = torch.random.get_rng_state()
    loaded = load(slim, text=has_text)
    assert torch.equal(torch.random.get_rng_state(), rng), "loading may not draw random numbers"
    assert not loaded.training
    assert [(n, p.requires_grad) for n, p in loaded.named_parameters()] == [
        (n, p.requires_grad) for n, p in filled.named_parameters()
    ]
    assert_same(loaded.state_dict(), filled.state_dict())
    assert_same(dict(loaded.named_buffers()), dict(filled.named_buffers()))
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        assert torch.equal(loaded(pixels), filled(pixels))


def test_tied_parameters_stay_one_parameter(ram_file):
    model = load(ram_file, text=True)
    for alias, name in _names.our_aliases(RAM).items():
        assert model.get_parameter(alias) is model.get_parameter(name), alias
    model.captioner.text_decoder.cls.predictions.decoder.weight.data[0] = 7
    assert (model.captioner.text_decoder.bert.embeddings.word_embeddings.weight[0] == 7).all()


def test_a_loaded_model_does_not_depend_on_its_file(tmp_path, ram_file):
    slim = convert_file(ram_file, tmp_path / "slim.safetensors")
    for path in (ram_file, slim):
        model = load(path)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
        assert_same(model.state_dict(), before)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_dtypes(ram_file, dtype):
    model = load(ram_file, dtype=dtype)
    expected = load(ram_file)
    kinds = {tensor.dtype for tensor in [*model.parameters(), *model.buffers()] if tensor.is_floating_point()}
    assert kinds == {getattr(torch, dtype)}
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor.to(getattr(torch, dtype))), name


def test_unknown_devices_and_dtypes(ram_file):
    with pytest.raises(InputError, match='unknown dtype "int8"; give one of float64, float32'):
        load(ram_file, dtype="int8")
    with pytest.raises(InputError, match='unknown device "abacus"; give one of torch'):
        load(ram_file, device="abacus")


def test_a_folder_holds_a_configuration_and_weights(tmp_path, ram_file):
    folder = tmp_path / "model"
    convert_file(ram_file, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model lacks config\.json; a model's folder holds"):
        load(folder)
    (folder / "config.json").write_text(config_to_json(replace(RAM, heads=2)), encoding="utf-8")
    model = load(str(folder))
    assert model.config == replace(RAM, heads=2, text=None)
    assert_same(model.state_dict(), load(ram_file).state_dict())
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model lacks model\.safetensors"):
        load(folder)


def test_configurations_survive_json():
    for config in CONFIGS.values():
        assert config_from_json(config_to_json(config), name="") == config
    assert json.loads(config_to_json(RAM))["vision"]["depths"] == [2, 1]


# By name


@pytest.fixture
def named(tmp_path, monkeypatch, ram_file):
    """The tiny file as a checkpoint called ``ram-tiny.test``, in a folder of the user's own."""
    digest = hashlib.sha256(ram_file.read_bytes()).hexdigest()
    source = weights.HubSource("somebody/tiny", "main", "ram.pth")
    checkpoint = weights.Checkpoint("ram-tiny.test", digest, ram_file.stat().st_size, "MIT", "random", source)
    monkeypatch.setattr(weights, "checkpoints", lambda: {"ram-tiny.test": checkpoint})
    monkeypatch.setitem(_loading._MODELS, "ram-tiny.test", lambda: RAM)
    monkeypatch.setenv("RASA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RASA_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("RASA_OFFLINE", "1")
    return checkpoint


def test_a_named_model_is_converted_on_first_use_and_then_read_from_the_slim_file(named, ram_file):
    expected = load(ram_file).state_dict()
    assert_same(load("ram-tiny.test").state_dict(), expected)
    slim = named.path.with_name("model.safetensors")
    assert slim.is_file()
    ram_file.unlink()
    assert_same(load("ram-tiny.test").state_dict(), expected)
    slim.write_bytes(slim.read_bytes()[:100])
    with pytest.raises(WeightsError, match="RASA_OFFLINE"):
        load("ram-tiny.test")


def test_a_cache_that_cannot_be_written_costs_time_and_no_more(named, ram_file, tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.warns(RasaWarning, match=r"cannot write .*; .*ram\.pth is read each time"):
        model = load("ram-tiny.test")
    assert_same(model.state_dict(), load(ram_file).state_dict())


def test_published_names_are_those_of_the_table_of_checkpoints(monkeypatch, tmp_path):
    assert set(_loading._MODELS) <= set(weights.checkpoints())
    for variable in ("RASA_CACHE", "RASA_WEIGHTS"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("RASA_OFFLINE", "1")
    for name in _loading._MODELS:
        with pytest.raises(WeightsError, match=f'"{name}".*RASA_OFFLINE'):
            rasa_ram.load(name)


def test_importing_the_package_loads_no_model_code():
    script = "import sys, rasa_ram; rasa_ram.__all__; print(sorted({'torch', 'timm', 'numpy'} & set(sys.modules)))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)})
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="hat"):
        rasa_ram.hat  # noqa: B018


# The command


def test_the_command_converts_and_prints_the_file(tmp_path, ram_file):
    from rasa_ram.cli.convert import app

    dest = tmp_path / "slim.safetensors"
    done = CliRunner().invoke(app, [str(ram_file), str(dest)])
    assert (done.exit_code, done.stdout) == (0, f"{dest}\n")
    assert "MB in" in done.stderr
    assert_same(read_checkpoint(dest, RAM), read_checkpoint(ram_file, RAM))


def test_the_command_fails_with_the_typed_error(tmp_path, ram_file):
    from rasa_ram.cli.convert import app

    arguments = [str(ram_file), str(tmp_path / "slim.safetensors"), "--model", "ram-swin-l.14m"]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, CheckpointError)
    assert "expected RAM with Swin-L at 384 pixels" in str(done.exception)
    assert not (tmp_path / "slim.safetensors").exists()
    extra = save(tmp_path / "extra.pth", changed("clip.scale", torch.ones(1))(published(RAM)))
    arguments = [str(extra), str(tmp_path / "slim.safetensors"), "--ignore", r"clip\..*"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
