"""Settings of a run: what they refuse, and the steps that they mean."""

import pytest

from rasa.errors import ConfigError
from rasa_ram.training.settings import RunSettings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"epochs": True}, "epochs must be a whole number of at least 1, got True"),
        ({"max_steps": 0}, "max_steps must be a whole number of at least 1, got 0"),
        ({"accumulate": 1.5}, "accumulate must be a whole number of at least 1, got 1.5"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16, got 'float16'"),
        ({"sharding": "zero"}, "sharding must be one of none, fsdp, got 'zero'"),
        ({"alignment": "all"}, "alignment must be one of device, global, got 'all'"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, got 'tpu'"),
        ({"clip_norm": 0}, "clip_norm must be above 0, got 0; leave it out to clip nothing"),
        ({"clip_norm": float("nan")}, "clip_norm must be above 0, got nan"),
        ({"ema": 1.0}, r"ema must be in \(0, 1\), such as 0.9998, got 1.0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, got -0.1"),
        ({"loss_images": 0}, "loss_images must be a whole number of at least 1, got 0"),
        ({"tensorboard": 1}, "tensorboard must be one of True, False, got 1"),
        ({"parts": "captions"}, "parts must be a tuple of names, got 'captions'"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        RunSettings(**values)


def test_steps_follow_from_batches_accumulation_and_limit():
    assert RunSettings(epochs=3).total_steps(10) == 30
    assert RunSettings(epochs=3, accumulate=4).total_steps(10) == 6
    assert RunSettings(epochs=3, max_steps=7).total_steps(10) == 7
    with pytest.raises(ConfigError, match="an epoch has 3 batches and a step takes 4"):
        RunSettings(accumulate=4).total_steps(3)


def test_the_fingerprint_leaves_out_what_changes_no_weight():
    base = RunSettings()
    harmless = RunSettings(epochs=9, max_steps=5, save_every=3, keep=7, log_every=2, tensorboard=True)
    assert harmless.fingerprint() == base.fingerprint()
    assert RunSettings(parts=("b", "a")).fingerprint() == RunSettings(parts=("a", "b")).fingerprint()
    assert RunSettings(ema=0.9).fingerprint() != base.fingerprint()
