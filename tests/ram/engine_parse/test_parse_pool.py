"""Batches through worker processes."""

import os
from functools import partial

import pytest

from rasa.errors import WorkerError
from rasa_ram.engine.parse_pool import BatchPool

COPY = partial(partial, list)  # makes a function that copies a batch; picklable, and loads in any process


@pytest.mark.parametrize("processes", [1, 2])
def test_answers_keep_their_order(processes):
    texts = [str(number) for number in range(25)]
    answers = list(BatchPool(COPY, processes=processes, batch_size=4).run(texts))
    assert [len(answer) for answer in answers] == [4, 4, 4, 4, 4, 4, 1]
    assert [text for answer in answers for text in answer] == texts


def test_processes_read_only_a_little_ahead():
    read = []
    endless = (read.append(1) or "text" for _ in iter(int, 1))
    answers = BatchPool(COPY, processes=2, batch_size=2).run(endless)
    next(answers)
    assert len(read) <= 14
    answers.close()


def test_a_dead_process_is_an_error_with_a_remedy():
    with pytest.raises(WorkerError, match="died, perhaps for want of memory; use fewer processes"):
        list(BatchPool(partial(os._exit, 3), processes=2).run(["a"]))


def test_errors_of_the_work_come_through():
    with pytest.raises(ValueError, match="invalid literal"):
        list(BatchPool(partial(int, "x"), processes=2).run(["a"]))
