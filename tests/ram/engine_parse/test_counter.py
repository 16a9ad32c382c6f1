"""Counting in bounded memory: exact, or within the bound that it states."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa.errors import InputError
from rasa_ram.engine.label_system_counter import BoundedCounter


@given(st.lists(st.integers(0, 30).map(str), max_size=300), st.integers(1, 20))
def test_the_bound_holds(keys, capacity):
    counter, true = BoundedCounter(capacity), Counter(keys)
    for key in keys:
        counter.add(key)
    assert len(counter) <= 2 * capacity
    assert all(counter[key] <= true[key] <= counter[key] + counter.error for key in true)
    if len(true) <= 2 * capacity:
        assert (dict(counter.counts), counter.error) == (dict(true), 0)


@given(st.lists(st.lists(st.integers(0, 30).map(str), max_size=100), max_size=4), st.integers(1, 20))
def test_the_bound_holds_for_parts_that_are_added(parts, capacity):
    total, true = BoundedCounter(capacity), Counter()
    for part in parts:
        counter = BoundedCounter(capacity)
        for key in part:
            counter.add(key)
        true.update(part)
        total.update(counter.counts, error=counter.error)
    assert all(total[key] <= true[key] <= total[key] + total.error for key in true)


def test_the_frequent_words_of_a_skewed_text_are_certain():
    drawn = [str(number) for number in np.random.default_rng(0).zipf(1.2, 200_000)]
    counter, true = BoundedCounter(5000), Counter(drawn)
    for key in drawn:
        counter.add(key)
    assert len(true) > 4 * counter.capacity
    top = counter.top(200)
    assert 0 < counter.error < top[-1][1] / 5
    assert {key for key, _ in top} >= {key for key, count in true.items() if count > top[-1][1] + counter.error}
    assert all(true[key] - counter.error <= count <= true[key] for key, count in top)


def test_capacity_out_of_range():
    with pytest.raises(InputError, match="capacity must be at least 1, got 0"):
        BoundedCounter(0)
