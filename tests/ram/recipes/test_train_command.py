"""``rasa-ram train``: a tiny model on a dozen generated pictures, through the command line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from rasa.cli._lazy import import_command
from rasa_ram.cli import COMMANDS, app
from rasa_ram.tagger import load_tagger
from rasa_ram.training.config import load_recipe, recipes
from tests.ram.recipes.tiny_recipe import TAGS, write_tiny_recipe

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The file of a tiny recipe: 12 pictures in batches of 3, 2 epochs, so 8 steps."""
    return write_tiny_recipe(tmp_path_factory.mktemp("tiny") / "recipe")


@pytest.fixture(scope="module")
def rasa_ram():
    """Run the command line in this process: ``rasa_ram("train", ...)``."""

    def run(*arguments):
        environment = {"COLUMNS": "200", "RANK": "0", "WORLD_SIZE": "1"}
        words = [str(argument) for argument in arguments]
        return CliRunner(env=environment).invoke(app, words, prog_name="rasa-ram")

    return run


@pytest.fixture(scope="module")
def trained(rasa_ram, tiny):
    """What the command said, and the folder of the whole run."""
    out = tiny.parent / "whole"
    return rasa_ram("train", tiny, "--out", out, "--set", "run.seed=1"), out


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_help_lists_the_commands(rasa_ram):
    text = rasa_ram("--help").stdout
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name}" in text
        assert summary in text
    assert rasa_ram("--version").stdout.startswith("rasa-ram ")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lines_are_those_of_the_commands(name):
    assert import_command(COMMANDS, name).help.splitlines()[0] == COMMANDS[name][1]


def test_importing_the_group_loads_no_model_package():
    code = "import rasa_ram.cli, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {name.split(".")[0] for name in done.stdout.split()} & {"torch", "timm", "transformers", "accelerate"}


def test_list_shows_the_recipes(rasa_ram):
    shown = rasa_ram("train", "--list")
    assert shown.exit_code == 0
    assert all(name in shown.stdout and summary in shown.stdout for name, summary in recipes().items())


def test_a_recipe_becomes_a_model_that_tags(trained, tiny):
    done, out = trained
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(out / "model.safetensors")
    assert re.search(r"1 weights from label_vectors .*vectors\.npy", done.stderr)
    assert re.search(r"\d+ weights fresh \(visual_encoder \d+, tag_decoder \d+", done.stderr)
    assert "1 weights frozen (label_embedding 1)" in done.stderr
    assert re.search(r"step 8 of 8, loss [\d.]+, rate 0\.0005", done.stderr)  # cosine, second of two epochs
    log = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in log] == list(range(1, 9))
    assert log[-1]["losses"]["total"] < log[0]["losses"]["total"]
    assert load_tagger(str(out)).vocabulary.names == TAGS


def test_the_run_saves_the_recipe_that_it_used(trained, tiny):
    _, out = trained
    assert load_recipe(out / "recipe.toml") == load_recipe(tiny, ["run.seed=1"])


def test_set_changes_the_run_and_resume_goes_on_to_the_same_weights(rasa_ram, trained, tiny):
    out = tiny.parent / "halves"
    first = rasa_ram("train", tiny, "--out", out, "--set", "run.seed=1", "--set", "run.max_steps=5")
    assert first.exit_code == 0, first.output
    assert "step 5 of 5" in first.stderr
    again = rasa_ram("train", tiny, "--out", out, "--set", "run.seed=1")
    assert again.exit_code == 1
    assert "holds a training already; resume it, or train in another folder" in again.stderr
    # Without a recipe, the run's own.
    rest = rasa_ram("train", "--out", out, "--resume", "--set", "run.max_steps=")
    assert rest.exit_code == 0, rest.output
    assert "step 6 of 8" in rest.stderr
    expected = weights(trained[1])
    found = weights(out)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_a_run_on_other_data_settings_is_not_resumed(rasa_ram, trained, tiny):
    _, out = trained
    done = rasa_ram("train", "--out", out, "--resume", "--set", "data.max_words=7", "--set", "run.epochs=3")
    assert done.exit_code == 1
    assert "max_words" in done.stderr


def test_a_resume_that_is_refused_leaves_the_runs_recipe_as_it_is(rasa_ram, tiny):
    out = tiny.parent / "refused"
    first = rasa_ram("train", tiny, "--out", out, "--set", "run.max_steps=2")
    assert first.exit_code == 0, first.output
    recipe = (out / "recipe.toml").read_bytes()
    assert rasa_ram("train", "--out", out, "--resume", "--set", "run.seed=3").exit_code == 1
    assert (out / "recipe.toml").read_bytes() == recipe
    rest = rasa_ram("train", "--out", out, "--resume", "--set", "run.max_steps=4")
    assert rest.exit_code == 0, rest.output
    assert "step 4 of 4" in rest.stderr


@pytest.mark.filterwarnings("default::rasa.errors.RasaWarning")
def test_a_resume_with_other_rates_says_so_and_keeps_them(rasa_ram, tiny):
    out = tiny.parent / "calmer"
    first = rasa_ram("train", tiny, "--out", out, "--set", "run.max_steps=3")
    assert first.exit_code == 0, first.output
    calmer = ["--set", "run.max_steps=5", "--set", "schedule.peak=1e-5", "--set", "run.clip_norm=1.0"]
    rest = rasa_ram("train", "--out", out, "--resume", *calmer)
    assert rest.exit_code == 0, rest.output
    assert "after step 3: schedule.decay.peak was 0.001 and is 1e-05; settings.clip_norm was None and is 1.0" in (
        rest.stderr
    )
    log = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["rate"] for line in log] == pytest.approx([1e-3] * 3 + [1e-5, 5e-6])
    assert load_recipe(out / "recipe.toml").run.clip_norm == 1.0


def changed(folder, change):
    """The tiny recipe, its records as ``change`` leaves them."""
    recipe = write_tiny_recipe(folder)
    records = json.loads((folder / "data.json").read_text())
    change(records)
    (folder / "data.json").write_text(json.dumps(records))
    return recipe


@pytest.mark.filterwarnings("default::rasa.errors.RasaWarning")
def test_bad_records_are_counted_before_the_training_goes_on_without_them(rasa_ram, tmp_path):
    def spoil(records):
        records[0]["union_label_id"] = [99]
        del records[1]["image_path"]

    recipe = changed(tmp_path / "recipe", spoil)
    done = rasa_ram("train", recipe, "--out", tmp_path / "out", "--set", "run.max_steps=1")
    assert done.exit_code == 0, done.output
    assert f"{recipe.parent / 'data.json'}: 1 x id-range, 1 x no-image; what could not be mended" in done.stderr
    planned = rasa_ram("train", recipe, "--dry-run", "--json")
    assert json.loads(planned.stdout)["records"] == 10
    assert "1 x id-range, 1 x no-image" in planned.stderr
    stopped = rasa_ram("train", recipe, "--out", tmp_path / "none", "--set", 'data.on_bad="stop"')
    assert (stopped.exit_code, "record 0" in stopped.stderr) == (1, True)


def test_captions_that_were_never_parsed_are_not_trained_as_absent_tags(rasa_ram, tmp_path):
    def forget(records):
        for record in records:
            record["parse_label_id"] = [[] for _ in record["parse_label_id"]]
            record["union_label_id"] = []

    recipe = changed(tmp_path / "recipe", forget)
    done = rasa_ram("train", recipe, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "no record of" in done.stderr
    assert "rasa-ram parse" in done.stderr


def test_results_as_json(rasa_ram, tiny):
    done = rasa_ram("train", tiny, "--out", tiny.parent / "json", "--set", "run.max_steps=1", "--json")
    report = json.loads(done.stdout)
    assert (report["steps"], report["interrupted"], report["left_out"]) == (1, False, {})
    assert Path(report["weights"]).is_file()


def test_dry_run_counts_and_writes_nothing(rasa_ram, tiny):
    before = sorted(tiny.parent.iterdir())
    done = rasa_ram("train", tiny, "--dry-run", "--images-per-second", "10", "--gpus", "2")
    assert done.exit_code == 0, done.output
    for row in (r"captioner +[\d,]+ +0", r"activations +\d", r"records +12\b", r"images of a step +6\b", r"steps +4\b"):
        assert re.search(row, done.stdout), row
    assert sorted(tiny.parent.iterdir()) == before
    plan = json.loads(rasa_ram("train", tiny, "--dry-run", "--json").stdout)
    assert (plan["steps"], plan["steps_per_epoch"], plan["hours"]) == (8, 4, None)


def test_dry_run_measures_the_speed(rasa_ram, tiny):
    plan = json.loads(rasa_ram("train", tiny, "--dry-run", "--probe", "2", "--json").stdout)
    assert plan["images_per_second"] > 0
    assert plan["hours"] == pytest.approx(24 / plan["images_per_second"] / 3600)
    done = rasa_ram("train", tiny, "--dry-run", "--probe", "4")
    assert "an epoch has 4 batches, too few to time 4 steps" in done.stderr


def test_show_prints_every_key(rasa_ram, tiny, tmp_path):
    text = rasa_ram("train", tiny, "--show", "--set", "run.ema=0.99").stdout
    (tmp_path / "shown.toml").write_text(text, encoding="utf-8")
    assert load_recipe(tmp_path / "shown.toml") == load_recipe(tiny, ["run.ema=0.99"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "run.epoch=1", "--out", "x"], 1, 'unknown key "run.epoch"; did you mean "epochs"?'),
        ([], 2, "name the run's folder"),
        (["--probe", "3", "--out", "x"], 2, "has no effect without --dry-run"),
        (["--set", "data.manifests=", "--out", "x"], 1, "the recipe names no data.manifests; say what to train on"),
        (["--set", "data.images=gone", "--out", "x"], 1, "paths of a recipe are relative to it"),
        (
            ["--set", "model.text.vocab_size=14", "--out", "x"],
            1,
            "vocab_size is 14, and the captioner's vocabulary has 15",
        ),
    ],
)
def test_what_is_wrong_is_one_line(rasa_ram, tiny, monkeypatch, tmp_path, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    done = rasa_ram("train", tiny, *arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert not (tmp_path / "x").exists()


def test_no_recipe_is_bad_usage(rasa_ram):
    done = rasa_ram("train")
    assert done.exit_code == 2
    assert "`rasa-ram train --list` shows the built-in ones" in done.stderr


@pytest.mark.slow
def test_two_processes_under_torchrun(tiny):
    """Each prints nothing but its own rank's part: one bar, one result; and both end with one model."""
    out = tiny.parent / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "rasa_ram", "train", str(tiny), "--out", str(out), "--set", "data.batch_size=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out / "model.safetensors")
    assert done.stderr.count("step 6 of 6") == 1
    assert json.loads((out / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])["step"] == 6


def test_commands_and_settings_of_the_page_are_real(rasa_ram):
    page = (ROOT / "docs" / "how-to" / "ram-pretrain.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    commands = re.findall(r"(?:^rasa-ram|-m rasa_ram) (\w+)", code, re.MULTILINE)
    assert len(commands) >= 9
    assert set(commands) <= set(COMMANDS)
    for line in [line for line in code.splitlines() if "train " in line and "--list" not in line]:
        settings = [one.strip("'") for one in re.findall(r"--set ('[^']*'|\S+)", line)]
        name = re.search(r"train ((?:pre|fine)\w+)", line)
        load_recipe(name[1] if name else "pretrain_ram_swin_l_224", settings)
    for flag in set(re.findall(r"train .*?(--(?:dry-run|records|gpus|images-per-second|show|resume|out))\b", code)):
        assert flag in rasa_ram("train", "--help").stdout
