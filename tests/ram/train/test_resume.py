"""A run that is killed and resumed ends with the weights of one that was not; one that is asked to end saves first."""

import json
import os
import random
import signal

import pytest
import torch

import rasa_ram
from rasa.errors import ConfigError, RasaWarning, TrainingError
from rasa_ram.training.log import read_log
from rasa_ram.training.schedule import CosineDecay, Schedule
from rasa_ram.training.state import find_checkpoint, read_position
from tests.ram.train.runs import Source, killed_and_resumed, sharded_run, together, trainer

CALMER = Schedule(decay=CosineDecay(peak=1e-4, floor=0.0, epochs=2))
TAGS_ALONE = {"parts": (), "accumulate": 2, "ema": 0.9, "clip_norm": 1.0, "source": None}


def same_files(one, two, names=("model.safetensors",)):
    return all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def test_killed_at_random_steps_and_resumed_the_weights_are_bit_equal(tmp_path):
    options = TAGS_ALONE | {"source": Source(8), "save_every": 3}  # 8 steps
    assert killed_and_resumed(tmp_path / "undisturbed", "ram", [], options) == [0]
    steps = sorted(random.SystemRandom().sample(range(1, 8), 2))
    codes = killed_and_resumed(tmp_path / "killed", "ram", steps, options)
    assert codes == [-signal.SIGKILL] * 2 + [0], steps
    names = ("model.safetensors", "average/model.safetensors")
    assert same_files(tmp_path / "undisturbed", tmp_path / "killed", names), steps
    logs = [read_log(tmp_path / run / "log.jsonl") for run in ("undisturbed", "killed")]
    assert [line["step"] for line in logs[1]] == list(range(1, 9))
    assert [line["losses"] for line in logs[0]] == [line["losses"] for line in logs[1]]
    # Dropout and drop path were on: another seed gives other weights.
    assert killed_and_resumed(tmp_path / "other", "ram", [], options | {"seed": 1}) == [0]
    assert not same_files(tmp_path / "undisturbed", tmp_path / "other")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ram", "ram-plus", "tag2text"])
@pytest.mark.parametrize("options", [{}, {"precision": "bfloat16", "gradient_checkpointing": True, "accumulate": 2}])
def test_every_family_resumes_bit_equal(tmp_path, family, options):
    options = {"save_every": 2, "source": Source(8), "ema": 0.9, **options}
    steps = sorted(random.SystemRandom().sample(range(1, 8), 3))
    assert killed_and_resumed(tmp_path / "undisturbed", family, [], options) == [0]
    assert killed_and_resumed(tmp_path / "killed", family, steps, options) == [-signal.SIGKILL] * 3 + [0], steps
    names = ("model.safetensors", "average/model.safetensors")
    assert same_files(tmp_path / "undisturbed", tmp_path / "killed", names), steps


@pytest.mark.slow
def test_a_sharded_run_resumes_and_its_weights_load(tmp_path):
    assert together(sharded_run, 2, str(tmp_path / "once"), False) == [0, 0]
    assert together(sharded_run, 2, str(tmp_path / "once"), True) == [0, 0]
    assert find_checkpoint(tmp_path / "once").name == "step-00000010"
    trained = rasa_ram.load(tmp_path / "once", text=True)
    average = rasa_ram.load(tmp_path / "once" / "average", text=True)
    pairs = list(zip(trained.parameters(), average.parameters(), strict=True))
    assert any(not torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_end_saves_and_goes_on_later(tmp_path, number):
    def ask(report):
        if report.step == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    report = trainer(tmp_path / "one", parts=(), save_every=100, progress=ask).run()
    assert (report.steps, report.interrupted, report.weights) == (3, True, None)
    assert report.checkpoint == tmp_path / "one" / "checkpoints" / "step-00000003"
    assert signal.getsignal(number) is before
    done = trainer(tmp_path / "one", parts=(), save_every=100, resume=True).run()
    assert (done.steps, done.interrupted) == (10, False)
    trainer(tmp_path / "two", parts=(), save_every=100).run()
    assert same_files(tmp_path / "one", tmp_path / "two")


def test_a_source_is_read_from_the_batch_where_the_run_stopped(tmp_path):
    trainer(tmp_path, parts=(), max_steps=3).run()
    source = Source()
    trainer(tmp_path, parts=(), source=source, resume=True).run()
    assert source.read == [(0, 3), (0, 4), *((1, number) for number in range(5))]


def test_a_torn_checkpoint_is_passed_over(tmp_path):
    trainer(tmp_path / "one", parts=()).run()
    trainer(tmp_path / "two", parts=()).run()
    folder = tmp_path / "two" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000008", "step-00000010"]
    weights = folder / "step-00000010" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.warns(RasaWarning, match="step-00000010 is damaged: weights.safetensors has sha256 .* an older"):
        report = trainer(tmp_path / "two", parts=(), resume=True).run()
    assert report.steps == 10
    assert same_files(tmp_path / "one", tmp_path / "two")
    for path in folder.iterdir():
        (path / "position.json").write_text("{", encoding="utf-8")
    with pytest.warns(RasaWarning, match=r"is torn: position.json cannot be read"):
        assert find_checkpoint(tmp_path / "two") is None


def test_a_folder_that_was_not_finished_is_no_checkpoint(tmp_path):
    trainer(tmp_path, parts=(), max_steps=2).run()
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "step-00000002").rename(checkpoints / ".step-00000002.part")
    assert find_checkpoint(tmp_path) is None
    assert trainer(tmp_path, parts=(), max_steps=2, resume=True).run().steps == 2
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000002"]


def test_another_run_in_the_same_folder_is_refused(tmp_path):
    trainer(tmp_path, parts=(), max_steps=2, data={"manifest": "one"}).run()
    with pytest.raises(ConfigError, match="holds a training already; resume it, or train in another folder"):
        trainer(tmp_path, parts=(), max_steps=2).run()
    changed = trainer(tmp_path, parts=(), seed=7, data={"manifest": "two"}, source=Source(6), resume=True)
    expected = (
        "cannot resume from .*: data.batches was 5 and is 6; data.manifest was 'one' and is 'two'; "
        "settings.seed was 0 and is 7; set them back"
    )
    with pytest.raises(ConfigError, match=expected):
        changed.run()
    harmless = {"keep": 1, "save_every": 3, "log_every": 5, "max_steps": 4}
    assert trainer(tmp_path, parts=(), data={"manifest": "one"}, resume=True, **harmless).run().steps == 4


def test_rates_and_clipping_may_change_on_resume_and_every_checkpoint_tells(tmp_path):
    trainer(tmp_path, parts=(), max_steps=2).run()
    calmer = {"parts": (), "schedule": CALMER, "clip_norm": 0.5, "resume": True}
    expected = (
        r"goes on with other settings after step 2: schedule.decay.peak was 0.001 and is 0.0001; "
        r"schedule.warmup.start was 1e-05 and is None; schedule.warmup.steps was 3 and is None; "
        r"settings.clip_norm was None and is 0.5"
    )
    with pytest.warns(RasaWarning, match=expected):
        trainer(tmp_path, max_steps=3, **calmer).run()
    report = trainer(tmp_path, **calmer).run()  # the same again is no change
    rates = [line["rate"] for line in read_log(tmp_path / "log.jsonl")]
    assert rates == pytest.approx([1e-5, 3.4e-4, *[1e-4] * 3, *[5e-5] * 5])
    changes = read_position(report.checkpoint).changes
    assert [change["step"] for change in changes] == [2] * 4
    assert changes[-1] == {"step": 2, "key": "settings.clip_norm", "was": None, "is": 0.5}


def test_what_else_differs_is_refused_beside_other_rates(tmp_path):
    trainer(tmp_path, parts=(), max_steps=2).run()
    with pytest.raises(ConfigError, match=r"step-00000002: settings.weight_decay was 0.05 and is 0.1; set them back"):
        trainer(tmp_path, parts=(), schedule=CALMER, weight_decay=0.1, resume=True).run()
    with pytest.raises(ConfigError, match=r"settings.clip_norm was None and is 0.5; set them back"):  # no step is left
        trainer(tmp_path, parts=(), max_steps=2, clip_norm=0.5, resume=True).run()


def test_a_run_that_met_a_nan_goes_on_as_its_error_advises(tmp_path):
    broken = Source(broken=(0, 3))
    with pytest.raises(TrainingError, match="or lower the rate or set clip_norm, and resume"):
        trainer(tmp_path, parts=(), source=broken).run()
    with pytest.warns(RasaWarning, match="goes on with other settings after step 2"):
        assert trainer(tmp_path, parts=(), schedule=CALMER, clip_norm=0.5, resume=True).run().steps == 10


def test_a_finished_run_may_be_resumed_and_does_nothing(tmp_path):
    first = trainer(tmp_path, parts=(), max_steps=2).run()
    before = first.weights.read_bytes()
    again = trainer(tmp_path, parts=(), max_steps=2, resume=True).run()
    assert (again.steps, again.losses, again.checkpoint) == (2, {}, first.checkpoint)
    assert again.weights.read_bytes() == before


def test_the_callers_random_numbers_are_left_alone(tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    trainer(tmp_path, parts=(), max_steps=1).run()
    assert torch.equal(torch.rand(3), expected)


def test_positions_hold_plain_values(tmp_path):
    report = trainer(tmp_path, parts=(), max_steps=1).run()
    position = read_position(report.checkpoint)
    assert position.step == 1
    assert json.loads(json.dumps(position.fingerprint)) == position.fingerprint
