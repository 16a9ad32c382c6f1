"""``rasa presets``, ``models``, ``doctor``, ``--version`` and ``--help``."""

import json
import re
import sys
from importlib.resources import files

import pytest

import rasa as package
from rasa.cli import COMMANDS
from rasa.cli._lazy import import_command
from rasa.cli._needs import figures, needs
from rasa.config import load_preset_config, presets
from rasa.weights import checkpoints


def names_in_table(text):
    return {line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith("   ")}


def test_version(rasa):
    done = rasa("--version")
    assert (done.exit_code, done.stdout) == (0, f"rasa {package.__version__}\n")


def test_help_lists_the_commands(rasa):
    text = rasa("--help").stdout
    assert {"run", "presets", "models", "weights", "doctor"} <= set(COMMANDS)
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name}" in text
        assert summary in text  # in full, not cut short


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lines_are_those_of_the_commands(name):
    assert import_command(COMMANDS, name).help.splitlines()[0] == COMMANDS[name][1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(rasa, name):
    done = rasa(name, "--help")
    assert done.exit_code == 0
    assert COMMANDS[name][1] in done.stdout


def test_no_arguments_is_help(rasa):
    done = rasa()
    assert done.exit_code == 2
    assert "Commands:" in done.stdout + done.stderr


def test_an_unknown_command_gets_a_suggestion(rasa):
    done = rasa("dcotor")
    assert done.exit_code == 2
    assert "No such command 'dcotor'. Did you mean 'doctor'?" in done.stderr


def test_presets_lists_them(rasa):
    done = rasa("presets")
    assert done.exit_code == 0
    assert set(presets()) <= names_in_table(done.stdout)


def test_presets_as_json(rasa):
    entries = {entry["name"]: entry for entry in json.loads(rasa("presets", "--json").stdout)}
    assert set(entries) == set(presets())
    assert entries["lite"]["detector"] == "lite-detector"
    assert entries["lite"]["ready"] == (
        not entries["lite"]["missing_packages"] and not entries["lite"]["missing_weights"]
    )


def test_presets_say_what_they_take(rasa, monkeypatch, tmp_path):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path))
    entries = {entry["name"]: entry for entry in json.loads(rasa("presets", "--json").stdout)}
    ram = entries["ram"]
    wanted = ["ram-swin-l.14m", "ram-tags", "ram-tag-thresholds", "ram-tags-chinese"]
    wanted += ["grounding-dino-swin-t.ogc", "bert-base-uncased.vocab", "sam-vit-b.sa1b"]
    assert ram["fetch_bytes"] == sum(checkpoints()[name].size for name in wanted)
    assert ram["licenses"] == ["Apache-2.0"]
    assert "SAM License (custom, 2025-11-19)" in entries["ram-sam3"]["licenses"]
    [cure, _] = ram["cures"]
    assert cure.startswith("no weights ram-swin-l.14m, ram-tags, ")
    assert cure.endswith(": rasa weights fetch ram")
    text = rasa("presets").stdout
    assert "6.70" in text
    assert "SAM License (custom, 2025-11-19)" in text


FETCH = re.compile(r"([\d.]+) GB to fetch, ([\d.]+) GB of\s+(?:# )?weights in float32")


@pytest.mark.parametrize("name", [name for name in presets() if name != "lite"])
def test_the_comment_of_a_preset_says_its_size(name):
    comment = (files("rasa") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    found = needs(load_preset_config(name))
    [(fetch, weights)] = FETCH.findall(comment)
    assert float(fetch) == round(found.fetch_bytes / 1e9, 1)
    assert float(weights) == round(found.weight_bytes / 1e9, 1)


@pytest.mark.parametrize("name", presets())
def test_the_readme_says_what_a_preset_takes(name, root):
    lines = (root / "README.md").read_text(encoding="utf-8").splitlines()
    [cells] = [line.split("|") for line in lines if line.startswith(f"| `{name}` |")]
    found = needs(load_preset_config(name))
    assert cells[3].split(",")[0].strip() == f"{found.fetch_bytes / 1e9:.1f} GB"
    assert cells[4].strip() == ("" if found.weight_bytes is None else f"{found.weight_bytes / 1e9:.1f} GB")
    assert all(found.split(" ")[0] in cells[5] for found in found.licenses)


def test_a_gated_model_says_how_to_get_its_weights(rasa, monkeypatch, tmp_path):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path))
    monkeypatch.delenv("RASA_WEIGHTS", raising=False)
    [model] = [entry for entry in json.loads(rasa("models", "--json").stdout) if entry["name"] == "sam3.sa-co"]
    assert model["ready"] is False
    assert model["missing_folders"] == [str(tmp_path / "weights" / "sam3.sa-co")]
    assert "accept the licence on the hub's page of facebook/sam3" in model["cures"][0]
    assert "and the folder sam3.sa-co, which you have to get" in rasa("doctor").stdout
    (tmp_path / "weights" / "sam3.sa-co").mkdir(parents=True)
    [model] = [entry for entry in json.loads(rasa("models", "--json").stdout) if entry["name"] == "sam3.sa-co"]
    assert model["missing_folders"] == []


def test_needs_follow_from_the_models():
    made = load_preset_config("ram-light")
    found = needs(made)
    assert found.disk_bytes - found.fetch_bytes == 4 * 329_493_046  # the converted copy of RAM++
    assert found.weight_bytes == 4 * (329_493_046 + 172_250_626 + 31_440_721)
    assert found.largest_bytes == 4 * 329_493_046
    half = needs(made.with_overrides({"dtype": "bfloat16"}))
    assert 2 * half.weight_bytes == found.weight_bytes
    assert half.disk_bytes == found.disk_bytes
    assert needs(load_preset_config("lite")).weight_bytes is None


def test_figures_are_of_presets_and_scripts_that_exist(root):
    assert set(figures()) <= set(presets())
    assert "lite" in figures()
    for measured in figures().values():
        assert (root / measured.script).is_file()
        assert 0 < measured.seconds[0] <= measured.seconds[1]


def test_models_lists_built_in_ones_and_plugins(rasa, preset):
    done = rasa("models")
    assert done.exit_code == 0
    assert {"lite-tagger", "lite-detector", "lite-segmenter", "cli-tagger", "cli-lost"} <= names_in_table(done.stdout)


def test_what_a_model_lacks_comes_with_the_cure(rasa, preset, monkeypatch, tmp_path):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path))
    [lost] = [entry for entry in json.loads(rasa("models", "--json").stdout) if entry["name"] == "cli-lost"]
    assert lost["ready"] is False
    assert lost["missing_packages"] == ["no_such_package"]
    assert lost["missing_weights"] == ["efficientnet-lite0.in1k"]
    assert lost["fallbacks"] == {"ssd-mobilenet-v2.coco": "boxes by guess"}
    assert lost["cures"] == [
        'no no_such_package: pip install "rasa-vision[hats]"',
        "no weights efficientnet-lite0.in1k: rasa weights fetch efficientnet-lite0.in1k",
        "boxes by guess (rasa weights fetch ssd-mobilenet-v2.coco)",
    ]
    assert lost["checkpoints"]["efficientnet-lite0.in1k"] == checkpoints()["efficientnet-lite0.in1k"].license


def test_a_model_without_needs_is_ready(rasa, preset):
    ready = {entry["name"]: entry["ready"] for entry in json.loads(rasa("models", "--json").stdout)}
    assert ready["cli-detector"] is True


def test_doctor_without_weights_says_what_to_do(rasa, monkeypatch, tmp_path):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path / "empty"))
    done = rasa("doctor")
    assert done.exit_code == 1
    assert "cannot run yet" in done.stdout
    assert "rasa weights fetch efficientnet-lite0.in1k" in done.stdout


def test_doctor_as_json(rasa, monkeypatch, tmp_path):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path))
    (tmp_path / "file").write_bytes(b"12345")
    found = json.loads(rasa("doctor", "--json").stdout)
    assert found["rasa"] == package.__version__
    assert found["python"]["executable"] == sys.executable
    assert found["cache"]["folder"] == str(tmp_path)
    assert found["cache"]["used_bytes"] == 5
    assert found["cache"]["free_bytes"] > 0
    assert found["device"]["cores"] >= 1
    assert set(found["presets"]) == set(presets())


def test_doctor_says_ready_where_the_weights_are(rasa, checkpoint_file):
    for name in ("efficientnet-lite0.in1k", "ssd-mobilenet-v2.coco", "dinov2-vits14.focus"):
        checkpoint_file(name)
    done = rasa("doctor")
    assert done.exit_code == 0
    assert "can run" in done.stdout


def test_doctor_says_what_presets_take(rasa, monkeypatch, tmp_path):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path))
    text = rasa("doctor").stdout
    assert "disk: 6.70 GB to fetch, and 1.88 GB for converted copies" in text
    assert "memory: 2.94 GB of weights in float32, 1.88 GB at a time with --low-memory; images on top" in text
    assert f"time: {figures()['lite']}" in text
    found = json.loads(rasa("doctor", "--json").stdout)["presets"]
    assert found["lite"]["measured"]["seconds"] == list(figures()["lite"].seconds)
    assert {name for name, preset in found.items() if preset["measured"]} == set(figures())


def write_distribution(folder, name, *requirements):
    info = folder / f"{name.replace('-', '_')}-3.0.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 3.0", *requirements]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_doctor_warns_of_the_other_rasa(rasa, monkeypatch, tmp_path):
    write_distribution(tmp_path, "rasa")
    monkeypatch.syspath_prepend(str(tmp_path))
    done = rasa("doctor")
    assert 'warning: the chatbot framework "rasa" is installed here' in done.stderr
    assert "environment of its own" in done.stderr


def test_doctor_knows_the_extras(rasa, monkeypatch, tmp_path):
    write_distribution(
        tmp_path,
        "rasa-vision",
        "Requires-Dist: numpy>=2.0",
        'Requires-Dist: typer>=0.16; extra == "one"',
        'Requires-Dist: no-such-package[x]>=1; (python_version > "3") and extra == "one"',
        'Requires-Dist: rasa-vision[one]; extra == "all"',
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    extras = json.loads(rasa("doctor", "--json").stdout)["extras"]
    assert list(extras) == ["one"]
    assert extras["one"]["no-such-package"] is None
    assert extras["one"]["typer"]


def test_help_loads_nothing_heavy(environment):
    import subprocess

    code = "import sys, rasa.cli\ntry: rasa.cli.main()\nfinally: print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert "typer" in loaded
    assert not loaded & {"torch", "transformers", "supervision", "cv2", "numpy", "PIL", "rich"}


def test_a_broken_plugin_is_one_line_on_stderr(rasa_process, environment, plugin, tmp_path):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[rasa.models]\nbad = no_such_module_at_all:x\n", encoding="utf-8")
    path = f"{tmp_path}:{environment['PYTHONPATH']}"
    done = rasa_process("models", env={**environment, "PYTHONPATH": path, "PYTHONWARNINGS": ""})
    assert done.returncode == 0
    assert b"cli-tagger" in done.stdout
    [line] = done.stderr.decode().splitlines()
    assert line.startswith('warning: plugin "bad" (no_such_module_at_all:x) does not load: ModuleNotFoundError')
