"""Orders of an epoch: what they hold, how they spread, and how processes share them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa.errors import InputError
from rasa_ram.data.sampling import (
    class_balanced,
    first_position,
    generator,
    repeat_factors,
    sequential,
    shuffled,
    shuffled_in_windows,
    steps_of,
)


def table(rows):
    return np.array([i for row in rows for i in row], np.int64), np.cumsum([len(row) for row in rows], dtype=np.int64)


@given(count=st.integers(0, 200), seed=st.integers(0, 2**40), epoch=st.integers(0, 99))
def test_an_epoch_shows_every_record_once(count, seed, epoch):
    order = shuffled(count, seed=seed, epoch=epoch)
    np.testing.assert_array_equal(np.sort(order), sequential(count))
    np.testing.assert_array_equal(order, shuffled(count, seed=seed, epoch=epoch))


def test_seed_and_epoch_change_the_order():
    orders = [shuffled(100, seed=seed, epoch=epoch).tolist() for seed in range(5) for epoch in range(5)]
    assert len({tuple(order) for order in orders}) == 25


def test_generators_of_different_places_differ():
    places = [(7,), (7, 1), (7, 1, 0), (7, 1, 0, 0), (7, 0, 1), (8, 1)]
    assert len({generator(*place).random() for place in places}) == len(places)
    with pytest.raises(InputError, match="must be at least 0"):
        generator(-1, 2)


@given(
    blocks=st.lists(st.integers(0, 30), max_size=12), window=st.integers(1, 60), seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
)  # fmt: skip
def test_windows_lose_nothing_and_stay_in_their_blocks(blocks, window, seed, epoch):
    order = shuffled_in_windows(blocks, window, seed=seed, epoch=epoch)
    np.testing.assert_array_equal(np.sort(order), sequential(sum(blocks)))
    block_of = np.repeat(np.arange(len(blocks)), blocks)
    for start in range(0, len(order), window):
        # Records of a window come from blocks that are neighbours in the order of blocks: few are open at once.
        part = order[start : start + window]
        if blocks and min(blocks) >= 1:
            assert len(set(block_of[part])) <= window // min(blocks) + 2


def test_windows_mix_blocks():
    order = shuffled_in_windows([100] * 10, 300, seed=0, epoch=0)
    blocks = order // 100
    assert len(set(blocks[:300])) == 3
    assert np.abs(np.diff(blocks[:300])).astype(bool).mean() > 0.5
    assert order.tolist() != shuffled_in_windows([100] * 10, 300, seed=0, epoch=1).tolist()
    with pytest.raises(InputError, match="window must be at least 1"):
        shuffled_in_windows([3], 0, seed=0, epoch=0)


def test_repeat_factors_by_hand():
    # Tag 0 in 4 of 4 records, tag 1 in 1 of 4; LVIS: max(1, sqrt(t / f)) of the rarest tag.
    ids, ends = table([[0], [0, 1], [0], [0, 9, -1], []])
    factors = repeat_factors(ids, ends, 2, threshold=0.5)
    np.testing.assert_allclose(factors, [1, (0.5 / 0.2) ** 0.5, 1, 1, 1], rtol=1e-6)
    inverse = repeat_factors(ids, ends, 2, threshold=1, power=1)
    np.testing.assert_allclose(inverse, [1.25, 5, 1.25, 1.25, 1], rtol=1e-6)
    assert repeat_factors(*table([]), 3).shape == (0,)
    np.testing.assert_array_equal(repeat_factors(*table([[], []]), 3), [1, 1])
    with pytest.raises(InputError, match=r"threshold must be in \(0, 1\]"):
        repeat_factors(ids, ends, 2, threshold=0)


@given(rows=st.lists(st.lists(st.integers(0, 5), max_size=4, unique=True), max_size=20), power=st.floats(0, 1))
def test_repeat_factors_are_the_largest_of_their_tags(rows, power):
    ids, ends = table(rows)
    share = [sum(tag in row for row in rows) / max(1, len(rows)) for tag in range(6)]
    expected = [max([1.0] + [max(1.0, (0.3 / share[tag]) ** power) for tag in row]) for row in rows]
    np.testing.assert_allclose(repeat_factors(ids, ends, 6, threshold=0.3, power=power), expected, rtol=1e-5)


def test_inverse_frequency_shows_rare_tags_as_often_as_common_ones():
    rows = [[0]] * 900 + [[1]] * 90 + [[2]] * 10
    factors = repeat_factors(*table(rows), 3, threshold=1, power=1)
    tags = np.repeat([0, 1, 2], [900, 90, 10])
    for epoch in range(3):
        seen = np.bincount(tags[class_balanced(factors, seed=1, epoch=epoch)], minlength=3)
        assert seen.sum() == 1000
        np.testing.assert_allclose(seen, 1000 / 3, atol=15)


@given(factors=st.lists(st.floats(1, 30), min_size=1, max_size=40), seed=st.integers(0, 99))
def test_each_record_comes_floor_or_ceil_of_its_share(factors, seed):
    factors = np.array(factors, dtype=np.float32)
    times = np.bincount(class_balanced(factors, seed=seed, epoch=0), minlength=len(factors))
    share = len(factors) * factors.astype(float) / factors.astype(float).sum()
    assert times.sum() == len(factors)
    assert (times >= np.floor(share - 1e-6)).all()
    assert (times <= np.ceil(share + 1e-6)).all()


def test_over_epochs_each_record_comes_by_its_factor():
    factors = np.array([1, 1, 1, 2, 5], dtype=np.float32)
    times = sum(np.bincount(class_balanced(factors, seed=0, epoch=e), minlength=5) for e in range(2000))
    np.testing.assert_allclose(times / 2000, factors / 2, atol=0.05)
    assert class_balanced(factors[:0], seed=0, epoch=0).shape == (0,)


@given(count=st.integers(0, 300), batch=st.integers(1, 9), ranks=st.integers(1, 5))
def test_processes_share_a_step_without_gap_or_overlap(count, batch, ranks):
    steps = steps_of(count, batch_size=batch, ranks=ranks)
    assert steps == steps_of(count, batch_size=batch * ranks)
    for step in range(steps):
        parts = [first_position(step, batch_size=batch, rank=rank, ranks=ranks) for rank in range(ranks)]
        whole = first_position(step, batch_size=batch * ranks)
        assert [at for part in parts for at in range(part, part + batch)] == [*range(whole, whole + batch * ranks)]


@pytest.mark.slow
def test_14_million_records_take_seconds_and_few_bytes():
    order = shuffled(14_000_000, seed=0, epoch=3)
    assert order.nbytes == 112_000_000
    windows = shuffled_in_windows([5000] * 2800, 20_000, seed=0, epoch=3)
    assert np.bincount(windows).tolist() == [1] * 14_000_000
