"""Beam and greedy search over tables that say what follows what, small enough to try every sequence."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rasa.errors import InputError
from rasa_ram.modeling.beam_search import SearchOptions, search

END = 0


def table_model(tables):
    """A step function; ``tables`` is ``(B, V, V)``: logits of the next token by image and last token."""

    def step(tokens, rows):
        image = torch.arange(len(rows)) // (len(rows) // len(tables))
        assert (rows // (len(rows) // len(tables)) == image).all(), "a row continued another image's"
        return tables[image, tokens[:, -1]]

    return step


def run(tables, start=(1,), **options):
    tables = torch.as_tensor(tables, dtype=torch.float64)
    return search(table_model(tables), start, len(tables), end_id=END, options=SearchOptions(**options))


def random_tables(seed, images, vocabulary):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, vocabulary, vocabulary, generator=generator, dtype=torch.float64) * 2


def every_sequence(table, start, max_length, min_length):
    """All complete sequences with their scores: ended ones, and those that the length cut off."""
    log_probs = torch.log_softmax(table, dim=-1)
    others = range(1, len(table))
    for count in range(1, max_length - len(start) + 1):
        for body in itertools.product(others, repeat=count - 1):
            total_length = len(start) + count
            # The end token is chosen when the sequence has one token less.
            lasts = [END] if total_length - 1 >= min_length else []
            lasts += list(others) if total_length == max_length else []
            for token in lasts:
                ids = (*start, *body, token)
                pairs = itertools.pairwise(ids[len(start) - 1 :])
                yield sum(log_probs[a, b].item() for a, b in pairs) / count, ids


@pytest.mark.parametrize("min_length", [0, 3])
@pytest.mark.parametrize("seed", range(5))
def test_enough_beams_find_the_best_of_all_sequences_of_one_length(seed, min_length):
    # With two generated tokens at most, 16 beams hold every running sequence.
    table = random_tables(seed, 1, 5)
    found = run(table, beams=16, max_length=3, min_length=min_length)[0]
    score, ids = max(every_sequence(table[0], (1,), 3, min_length))
    assert found.ids == ids
    assert found.score == pytest.approx(score, abs=1e-12)


@given(seed=st.integers(0, 2**31), beams=st.integers(1, 4), penalty=st.sampled_from([1.0, 1.3]))
def test_a_batch_equals_its_images_one_by_one(seed, beams, penalty):
    tables = random_tables(seed, 3, 9)
    options = {"beams": beams, "max_length": 8, "min_length": 3, "repetition_penalty": penalty}
    assert run(tables, **options) == [run(table[None], **options)[0] for table in tables]


@given(seed=st.integers(0, 2**31), beams=st.integers(1, 4), max_length=st.integers(2, 9), data=st.data())
def test_lengths_are_kept_and_nothing_follows_the_end(seed, beams, max_length, data):
    min_length = data.draw(st.integers(0, max_length))
    found = run(random_tables(seed, 2, 9), beams=beams, max_length=max_length, min_length=min_length)
    for sequence in found:
        assert sequence.ids[0] == 1
        assert len(sequence.ids) <= max_length
        assert END not in sequence.ids[:-1]
        if sequence.ids[-1] == END:
            assert len(sequence.ids) > min_length
        else:
            assert len(sequence.ids) == max_length
        assert sequence.score <= 0


def chain(*after):
    """A table by hand: ``after[i]`` are the probabilities of what follows token i."""
    return torch.tensor([after], dtype=torch.float64).clamp(min=1e-9).log()


def test_greedy_search_takes_the_likeliest_token_each_time():
    table = chain([1, 0, 0], [0.1, 0.3, 0.6], [0.5, 0.3, 0.2])
    found = run(table, beams=1, max_length=9, min_length=0)[0]
    assert found.ids == (1, 2, END)
    assert found.score == pytest.approx(torch.tensor([0.6, 0.5]).log().mean().item(), abs=1e-6)


def test_beams_find_a_likelier_sequence_that_starts_worse():
    # Greedy goes to 2 (0.6) and gets stuck at 0.4 a token; through 3 (0.39) all is certain.
    table = chain([1, 0, 0, 0], [0.01, 0, 0.6, 0.39], [0.4, 0.3, 0.3, 0], [1, 0, 0, 0])
    assert run(table, beams=1, max_length=3, min_length=0)[0].ids == (1, 2, END)
    found = run(table, beams=2, max_length=3, min_length=0)[0]
    assert found.ids == (1, 3, END)
    assert found.score == pytest.approx(torch.tensor(0.39).log().item() / 2, abs=1e-6)


@pytest.mark.parametrize("beams", [1, 2])
def test_a_minimum_length_forbids_the_end(beams):
    table = chain([1, 0, 0, 0], [0.9, 0, 0.1, 0], [0.9, 0, 0.1, 0], [1, 0, 0, 0])
    assert run(table, beams=beams, max_length=9, min_length=1)[0].ids == (1, END)
    assert run(table, beams=beams, max_length=9, min_length=4)[0].ids == (1, 2, 2, 2, END)


def test_a_repetition_penalty_counts_the_start_tokens_too():
    # Logits: 2 follows itself narrowly; a penalty of 2 halves its positive logit in greedy search.
    logits = torch.tensor([[[0.0, 0, 0, 0], [0, 0, 3, 0], [0, 0, 3, 2], [5, 0, 0, 0]]])
    plain = run(logits, start=(1, 2), beams=1, max_length=4, min_length=0)
    assert plain[0].ids == (1, 2, 2, 2)
    penalised = run(logits, start=(1, 2), beams=1, max_length=4, min_length=0, repetition_penalty=2.0)
    assert penalised[0].ids == (1, 2, 3, END)
    # Beam search doubles the log-probability of a repeated token instead.
    log_probs = torch.log_softmax(logits[0, 2], dim=-1)
    found = run(logits, start=(1, 2), beams=2, max_length=3, min_length=3, repetition_penalty=2.0)[0]
    assert found.ids == (1, 2, 2)
    assert found.score == pytest.approx(2 * log_probs[2].item(), abs=1e-6)


def test_an_end_that_scores_best_does_not_close_the_search():
    # After three tokens the ends 0 (ln 0.5) and 2 1 0 (ln 0.15 / 3) are kept, and the best running sequence, 2 1 2, is
    # worse than both (ln 0.09 / 3). The rule compares with the best candidate, though, which is that end itself, and so
    # goes on; a certain step makes 2 1 2 1 the best of all (ln 0.09 / 4). transformers 5.23 closes here.
    table = chain([1, 0, 0, 0], [0.5, 0.12, 0.3, 0.08], [0, 1, 0, 0], [0.2, 0, 0.6, 0.2])
    found = run(table, beams=2, max_length=5, min_length=0)[0]
    assert found.ids == (1, 2, 1, 2, 1)
    assert found.score == pytest.approx(torch.tensor(0.09).log().item() / 4, abs=1e-6)


def test_a_search_closes_once_no_running_sequence_beats_the_worst_end_kept():
    # Ends 0 (ln 0.6) and 2 0 (ln 0.27 / 2 = -0.65) are kept; running sequences are at ln 0.03 / 2 = -1.75 at best. An
    # endless 2 2 2 ... would score better than either if it were followed up.
    steps = []
    table = chain([1, 0, 0], [0.6, 0.1, 0.3], [0.9, 0, 0.1])
    model = table_model(table)
    options = SearchOptions(beams=2, max_length=30, min_length=0)
    found = search(lambda *a: (steps.append(1), model(*a))[1], (1,), 1, end_id=END, options=options)
    assert found[0].ids == (1, END)
    assert len(steps) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beams": 0}, "beams must be a whole number of at least 1, got 0"),
        ({"beams": 2.5}, "beams must be a whole number"),
        ({"beams": True}, "beams must be a whole number"),
        ({"max_length": 0, "min_length": 0}, "max_length must be a whole number of at least 1"),
        ({"min_length": -1}, "min_length must be a whole number of at least 0, got -1"),
        ({"min_length": 31}, "min_length must be at most max_length, got 31 and 30"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be a number above 0"),
        ({"repetition_penalty": "1"}, "repetition_penalty must be a number above 0, got '1'"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty must be a number above 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        SearchOptions(**options)


def test_start_tokens_must_leave_room():
    with pytest.raises(InputError, match="max_length counts the 4 start tokens; it must be above 4, got 4"):
        run(random_tables(0, 1, 5), start=(1, 2, 3, 4), max_length=4, min_length=0)
