"""The log of a run: whole lines, none of them twice."""

import json

import pytest
import torch

from rasa.errors import OutputError
from rasa_ram.training.log import RunLog, StepReport, memory_gib, read_log


def report(step):
    return StepReport(
        step=step,
        steps=9,
        epoch=0,
        rate=0.1,
        losses={"total": 1.5},
        grad_norm=2.0,
        images_per_second=3.0,
        memory_gib=0.5,
    )


def test_a_resumed_log_has_no_line_twice_and_none_cut_off(tmp_path):
    log = RunLog(tmp_path / "new", step=0)
    for step in (1, 2, 3):
        log.write(report(step))
    with log.path.open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "los')  # killed while it wrote
    again = RunLog(tmp_path / "new", step=2)
    again.write(report(3))
    again.close()
    assert [line["step"] for line in read_log(log.path)] == [1, 2, 3]
    assert all(json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match=r"cannot write .*log.jsonl"):
        RunLog(tmp_path / "file", step=0)


def test_memory_is_in_gib():
    assert 0.05 < memory_gib(torch.device("cpu")) < 60
