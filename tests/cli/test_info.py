"""``rasa presets``, ``models``, ``doctor``, ``--version`` and ``--help``."""

import json
import sys

import pytest

import rasa as package
from rasa.cli import COMMANDS, _import_command
from rasa.config import presets
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
    assert _import_command(name).help.splitlines()[0] == COMMANDS[name][1]


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
