"""``rasa run`` on fake models: outputs, failures, exit codes, and that nothing is overwritten."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa.cli._outputs import distinct_stems
from rasa.config import PipelineConfig
from rasa.io.results import read_results


@pytest.fixture
def photos(tmp_path, photo):
    return [photo(tmp_path / "photos" / name) for name in ("one.jpg", "two.png")]


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def results_of(out):
    return list(read_results(out / "results.jsonl"))


def files_under(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_run_writes_pictures_masks_and_results(rasa, preset, photos, out):
    done = rasa("run", photos[0].parent, "--preset", preset, "--out", out)
    assert (done.exit_code, done.exception) == (0, None)
    assert files_under(out) == [
        "annotated/one.jpg",
        "annotated/two.png",
        "masks/one.png",
        "masks/two.png",
        "results.jsonl",
    ]
    first, second = results_of(out)
    assert (first.name, second.name) == tuple(map(str, photos))
    assert first.provenance["files"] == {"picture": "annotated/one.jpg", "mask": "masks/one.png"}
    assert first.provenance["preset"] == str(preset)
    assert first.tags.names == ("cat", "dog")
    with PIL.Image.open(out / "annotated" / "one.jpg") as picture:
        assert picture.format == "JPEG"
    with PIL.Image.open(out / "masks" / "one.png") as mask:
        assert mask.size == (40, 30)
        assert len(np.unique(np.asarray(mask))) == 2  # the two fake boxes share the photo
    assert "outputs in" in done.stderr


def test_the_table_says_what_was_found(rasa, preset, photos, out):
    lines = rasa("run", *photos, "--preset", preset, "--out", out, "--tags", "dog, dog ,cat").stdout.splitlines()
    assert next(line.split() for line in lines if "photo" in line) == ["photo", "tags", "objects", "seconds"]
    row = next(line for line in lines if "one.jpg" in line)
    assert "dog 1.00, cat 1.00" in row
    assert "dog, cat" in row


def test_json_is_all_that_stdout_holds(rasa_process, photos, out, preset):
    done = rasa_process("run", *photos, "--preset", str(preset), "--json", "--out", str(out))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == list(map(str, photos))
    assert all(json.loads(line)["instances"]["masks"][0]["counts"] for line in lines)
    assert done.stdout == (out / "results.jsonl").read_bytes()
    assert b"2 of 2 photos" in done.stderr


def test_json_needs_no_folder(rasa, preset, photos, tmp_path):
    before = files_under(tmp_path)
    done = rasa("run", *photos, "--preset", preset, "--json")
    assert done.exit_code == 0
    assert "files" not in json.loads(done.stdout.splitlines()[0])["provenance"]
    assert files_under(tmp_path) == before


def test_json_stays_on_stdout_while_a_bar_is_drawn(environment, preset, photos):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "rasa", "run", *map(str, photos), "--preset", str(preset), "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        stdout = process.stdout.read()
        drawn = b""
        while process.poll() is None or drawn == b"":
            try:
                drawn += os.read(ours, 65536)
            except OSError:  # what Linux says when the other end is closed
                break
    os.close(ours)
    assert process.returncode == 0
    assert [json.loads(line)["name"] for line in stdout.splitlines()] == list(map(str, photos))
    assert b"photos" in drawn


@pytest.mark.parametrize(
    ("flags", "files"),
    [
        (["--no-pictures"], ["masks/one.png", "results.jsonl"]),
        (["--no-masks"], ["annotated/one.jpg", "results.jsonl"]),
        (["--no-pictures", "--no-masks"], ["results.jsonl"]),
    ],
)
def test_outputs_can_be_left_out(rasa, preset, photos, out, flags, files):
    assert rasa("run", photos[0], "--preset", preset, "--out", out, *flags).exit_code == 0
    assert files_under(out) == files


def test_side_by_side_is_wider(rasa, preset, photos, out):
    assert rasa("run", photos[0], "--preset", preset, "--out", out, "--side-by-side").exit_code == 0
    with PIL.Image.open(out / "annotated" / "one.jpg") as picture:
        assert picture.width >= 2 * 40


def test_tags_take_the_place_of_the_tagger(rasa, preset, photos, out):
    unlucky = photos[0].parent / "unlucky.png"
    PIL.Image.new("RGB", (13, 9)).save(unlucky)  # the fake tagger fails on this
    done = rasa("run", unlucky, "--preset", preset, "--out", out, "--tags", "red car", "--box-threshold", "0")
    assert done.exit_code == 0
    [result] = results_of(out)
    assert result.tags.names == result.instances.labels == ("red car",)
    assert [stage["stage"] for stage in result.provenance["stages"]] == ["detect", "filter", "suppress", "segment"]
    assert result.provenance["config"]["tagger"] is None


def test_thresholds_are_obeyed_and_0_is_one(rasa, preset, photos, out):
    flags = ["--tag-threshold", "0", "--box-threshold", "0", "--min-area", "0", "--max-instances", "2"]
    flags += ["--nms-threshold", "0.25", "--merge-threshold", "1", "--dtype", "bfloat16", "--device", "cpu"]
    assert rasa("run", photos[0], "--preset", preset, "--out", out, *flags).exit_code == 0
    [result] = results_of(out)
    assert result.tags.names == ("cat", "dog", "red car")
    assert len(result.instances) == 2
    config = PipelineConfig(**result.provenance["config"])
    assert (config.tag_threshold, config.box_threshold, config.min_area, config.max_instances) == (0, 0, 0, 2)
    assert (config.nms_threshold, config.merge_threshold, config.dtype) == (0.25, 1, "bfloat16")
    detect, narrow = result.provenance["stages"][1:3]
    assert detect["box_threshold"] == narrow["box_threshold"] == 0


def test_a_high_box_threshold_leaves_nothing(rasa, preset, photos, out):
    assert rasa("run", photos[0], "--preset", preset, "--out", out, "--box-threshold", "0.95").exit_code == 0
    [result] = results_of(out)
    assert len(result.instances) == 0
    assert result.tags.names == ("cat", "dog")


def test_models_can_be_exchanged(rasa, preset, photos, out):
    done = rasa("run", photos[0], "--preset", preset, "--out", out, "--detector", "cli-detectr")
    assert done.exit_code == 1
    assert 'error: unknown model "cli-detectr"; did you mean "cli-detector"? (`rasa models`' in done.stderr


def test_every_field_of_the_config_is_a_flag(rasa):
    from dataclasses import fields

    text = rasa("run", "--help").stdout
    for item in fields(PipelineConfig):
        assert (f"--{item.name.replace('_', '-')} " in text) == (item.name != "summary")


def test_switches_are_flags_of_both_values(rasa, preset, photos, out):
    lines = preset.read_text(encoding="utf-8")
    preset.write_text(f"{lines}objects_only = false\n", encoding="utf-8")
    for flags, expected in (((), False), (("--objects-only",), True), (("--no-objects-only",), False)):
        done = rasa("run", photos[0], "--preset", preset, "--out", out, "--overwrite", *flags)
        assert done.exit_code == 0, done.stderr
        assert results_of(out)[0].provenance["config"]["objects_only"] is expected


def test_low_memory_on_the_cpu_says_what_it_is_for(rasa, preset, photos, out):
    done = rasa("run", photos[0], "--preset", preset, "--out", out, "--low-memory")
    assert done.exit_code == 1
    assert 'error: low_memory saves memory of a GPU, and on device "cpu"' in done.stderr


def test_compile_without_a_model_that_takes_it_is_refused(rasa, preset, photos, out):
    done = rasa("run", photos[0], "--preset", preset, "--out", out, "--compile")
    assert done.exit_code == 1
    assert "error: compile has no effect on cli-tagger, cli-detector, cli-segmenter; leave it out" in done.stderr


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_broken_photo_is_skipped_and_counted(rasa, preset, photo, tmp_path, out, batch_size):
    folder = tmp_path / "photos"
    photo(folder / "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    photo(folder / "c.png", width=13)
    photo(folder / "d.png")
    done = rasa("run", folder, "--preset", preset, "--out", out, "--batch-size", batch_size)
    assert done.exit_code == 0
    assert "4 of 4 photos" in done.stderr
    assert ", 2 of them failed" in done.stderr
    assert next(line for line in done.stdout.splitlines() if "b.png" in line).count("failed: ") == 1
    results = results_of(out)
    assert [result.ok for result in results] == [True, False, False, True]
    assert [result.failure.stage for result in results[1:3]] == ["decode", "tag"]
    assert results[1].provenance["files"] == {}
    assert results[3].provenance["files"] == {"picture": "annotated/d.png", "mask": "masks/d.png"}
    assert files_under(out / "masks") == ["a.png", "d.png"]


def test_raise_stops_at_the_first_and_keeps_what_was_done(rasa, preset, photo, tmp_path, out):
    folder = tmp_path / "photos"
    photo(folder / "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    photo(folder / "c.png")
    done = rasa("run", folder, "--preset", preset, "--out", out, "--on-error", "raise")
    assert done.exit_code == 1
    assert "b.png" in next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "Traceback" not in done.stderr
    assert [Path(result.name).name for result in results_of(out)] == ["a.png"]


def test_all_broken_is_a_failure(rasa, preset, tmp_path, out):
    (tmp_path / "x.png").write_bytes(b"")
    done = rasa("run", tmp_path / "x.png", "--preset", preset, "--out", out)
    assert done.exit_code == 1
    assert len(results_of(out)) == 1


def test_names_that_collide_get_files_of_their_own(rasa, preset, photo, tmp_path, out):
    paths = ["a/x.jpg", "b/x.jpg", "b/X.png", "b/x-2.png", "c/x.jpg"]
    for width, path in enumerate(paths, start=20):
        photo(tmp_path / path, width=width)
    done = rasa("run", *(tmp_path / path for path in paths), "--preset", preset, "--out", out)
    assert done.exit_code == 0
    results = results_of(out)
    masks = [result.provenance["files"]["mask"] for result in results]
    assert masks == ["masks/x.png", "masks/x-2.png", "masks/X-3.png", "masks/x-2-2.png", "masks/x-4.png"]
    for width, mask in enumerate(masks, start=20):
        with PIL.Image.open(out / mask) as picture:
            assert picture.width == width
    assert len(files_under(out / "annotated")) == 5


@given(st.lists(st.text(st.characters(exclude_characters="/\x00", codec="utf-8"), min_size=1, max_size=90), max_size=8))
def test_stems_are_distinct_and_fit_any_file_system(names):
    stems = distinct_stems([Path(f"{i}/{name}.jpg") for i, name in enumerate(names)])
    assert len({stem.casefold() for stem in stems}) == len(names)
    assert all(len(os.fsencode(f".{stem}.png.1234567.part")) <= 255 for stem in stems)


def test_a_name_that_is_no_utf8(rasa_process, preset, photo, tmp_path, out):
    given_name = os.fsdecode(b"caf\xe9 [red].png")
    try:
        path = photo(tmp_path / given_name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    done = rasa_process("run", os.fsencode(path), "--preset", str(preset), "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["name"].endswith("caf\\xe9 [red].png")
    with PIL.Image.open(out / result["provenance"]["files"]["mask"]) as mask:
        assert mask.size == (40, 30)
    table = rasa_process("run", os.fsencode(path), "--preset", str(preset), "--out", str(out / "again"))
    assert table.returncode == 0, table.stderr
    assert b"[red].png" in table.stdout  # square brackets are no markup


def test_an_earlier_run_is_not_overwritten_unasked(rasa, preset, photos, out):
    assert rasa("run", photos[0], "--preset", preset, "--out", out).exit_code == 0
    before = (out / "results.jsonl").read_bytes()
    again = rasa("run", photos[0], "--preset", preset, "--out", out)
    assert again.exit_code == 1
    assert "results.jsonl is there already; give --overwrite to replace it, or another --out" in again.stderr
    assert (out / "results.jsonl").read_bytes() == before
    assert rasa("run", *photos, "--preset", preset, "--out", out, "--overwrite").exit_code == 0
    assert len(results_of(out)) == 2


def test_masks_of_somebody_else_are_not_overwritten(rasa, preset, photos, out):
    precious = out / "masks" / "two.png"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(b"drawn by hand")
    done = rasa("run", *photos, "--preset", preset, "--out", out)
    assert done.exit_code == 1
    assert "two.png is there already" in done.stderr
    assert precious.read_bytes() == b"drawn by hand"


def test_outputs_inside_the_photos_are_not_taken_for_photos(rasa, preset, photos):
    folder = photos[0].parent
    assert rasa("run", folder, "--preset", preset, "--out", folder).exit_code == 0
    again = rasa("run", folder, "--preset", preset, "--out", folder, "--overwrite")
    assert again.exit_code == 0
    assert "left out 4 pictures" in again.stderr
    assert len(results_of(folder)) == 2
    only = rasa("run", folder / "annotated", "--preset", preset, "--out", folder, "--overwrite")
    assert only.exit_code == 1
    assert "all 2 photos lie in" in only.stderr


def test_out_that_is_a_file(rasa, preset, photos, out):
    out.write_text("mine")
    done = rasa("run", photos[0], "--preset", preset, "--out", out)
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [f"error: cannot write to {out}: File exists; give another --out"]
    assert out.read_text() == "mine"


def test_out_that_cannot_be_written(rasa, preset, photos, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o500)
    if os.access(locked, os.W_OK):
        target, reason = Path("/proc/out"), "No such file or directory"  # root may write anywhere but here
        if not Path("/proc/self").exists():
            pytest.skip("every folder can be written here")
    else:
        target, reason = locked / "out", "Permission denied"
    done = rasa("run", photos[0], "--preset", preset, "--out", target)
    assert done.exit_code == 1
    assert f"error: cannot write to {target}: {reason}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--preset", "light", "--out", "x"],
            'error: unknown preset "light"; did you mean "ram-light"? (`rasa presets`',
        ),
        (["--preset", "no.toml", "--out", "x"], "error: no.toml: there is no such file"),
        (["--dtype", "half", "--json"], "error: dtype must be one of float32, float16, bfloat16"),
        (["--device", "cuda:99", "--json"], 'error: device "cuda:99" is not there; PyTorch'),
    ],
)
def test_wrong_settings_are_one_line(rasa, photos, tmp_path, monkeypatch, preset, arguments, message):
    monkeypatch.chdir(tmp_path)
    settings = arguments if "--preset" in arguments else ["--preset", preset, *arguments]
    done = rasa("run", photos[0], *settings)
    assert done.exit_code == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --out DIR for files, or --json"),
        (["--json", "--side-by-side"], "--side-by-side and --overwrite are about the files of --out"),
        (["--out", "x", "--no-pictures", "--side-by-side"], "--side-by-side is about the pictures"),
        (["--out", "x", "--tags", " , "], "--tags must name at least one tag"),
        (["--out", "x", "--tags", "caf\udce9"], "--tags must be UTF-8 text, got 'caf\\udce9'"),
        (["--out", "x", "--tags", "a", "--tag-threshold", "0.2"], "--tags takes the place of a tagger"),
        (["--out", "x", "--batch-size", "0"], "Invalid value for '--batch-size'"),
        (["--out", "x", "--box-threshold", "1.5"], "Invalid value for '--box-threshold'"),
        (["--out", "x", "--on-error", "ignore"], "'ignore' is not one of"),
        (["--out", "x", "--box-treshold", "0.5"], "No such option: --box-treshold"),
    ],
)
def test_bad_usage_is_2(rasa, photos, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = rasa("run", photos[0], *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "x").exists()


def test_no_photos(rasa, preset, tmp_path, out):
    done = rasa("run", tmp_path / "nope.jpg", "--preset", preset, "--out", out)
    assert done.exit_code == 1
    assert "nope.jpg' does not exist; check the path" in done.stderr
    assert not out.exists()


def test_a_folder_without_photos(rasa, preset, tmp_path, out):
    (tmp_path / "empty").mkdir()
    done = rasa("run", tmp_path / "empty", "--preset", preset, "--out", out)
    assert done.exit_code == 1
    assert "no images in" in done.stderr


def test_debug_shows_the_traceback(rasa_process, photos):
    arguments = ("run", *photos, "--json", "--preset", "light")
    assert b"Traceback" not in rasa_process(*arguments).stderr
    assert b"Traceback" in rasa_process("--debug", *arguments).stderr


@pytest.mark.parametrize("command", ["run", "label"])
def test_a_folder_of_weights_that_is_missing_is_told_before_anything_is_fetched(
    rasa, photos, out, tmp_path, monkeypatch, command
):
    monkeypatch.setenv("RASA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RASA_WEIGHTS", raising=False)
    done = rasa(command, photos[0].parent, "--preset", "ram-sam3", "--out", out)
    assert done.exit_code == 1
    assert f"there is no {tmp_path / 'cache' / 'weights' / 'sam3.sa-co'}. The weights of SAM 3 are gated" in done.stderr
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another matter there")
def test_ctrl_c_keeps_what_is_done(environment, preset, photo, tmp_path, out):
    photo(tmp_path / "photos" / "a.png")
    photo(tmp_path / "photos" / "b.png", width=17)  # the fake tagger sleeps on this
    command = [
        sys.executable,
        "-m",
        "rasa",
        "run",
        str(tmp_path / "photos"),
        "--preset",
        str(preset),
        "--out",
        str(out),
    ]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr.readline() == b"working\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr.startswith(b"interrupted; 1 of 2 photos")
    assert len(stderr.splitlines()) == 1
    assert [Path(result.name).name for result in results_of(out)] == ["a.png"]
    assert files_under(out) == ["annotated/a.png", "masks/a.png", "results.jsonl"]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are another matter there")
@pytest.mark.parametrize("with_folder", [False, True])
def test_a_reader_that_leaves_is_no_error(environment, preset, photo, tmp_path, out, with_folder):
    paths = [str(photo(tmp_path / f"{i}.png")) for i in range(3)]
    command = [sys.executable, "-m", "rasa", "run", *paths, "--preset", str(preset), "--json"]
    if with_folder:
        command += ["--out", str(out)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        stderr = process.stderr.read()
    assert process.returncode == 1
    assert stderr == b""


def test_a_preset_without_tagger_wants_tags(rasa, preset, photos, out):
    preset.write_text('detector = "cli-detector"\n', encoding="utf-8")
    done = rasa("run", photos[0], "--preset", preset, "--out", out)
    assert done.exit_code == 1
    assert "has no tagger; say what to look for with --tags" in done.stderr
    assert rasa("run", photos[0], "--preset", preset, "--out", out, "--tags", "cat").exit_code == 0
    assert files_under(out) == ["annotated/one.jpg", "results.jsonl"]  # no segmenter, no masks


def test_tags_without_a_detector_are_refused(rasa, preset, photos, out):
    preset.write_text('tagger = "cli-tagger"\n', encoding="utf-8")
    assert rasa("run", photos[0], "--preset", preset, "--out", out).exit_code == 0
    done = rasa("run", photos[0], "--preset", preset, "--out", out, "--tags", "cat")
    assert done.exit_code == 1
    assert "has no detector that could look for the --tags" in done.stderr
