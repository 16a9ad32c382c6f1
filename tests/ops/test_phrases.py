"""Captions from tags, and tags from token scores, against brute force and by hand."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rasa.errors import InputError
from rasa.ops.packing import pack
from rasa.ops.phrases import (
    CLS,
    MAX_TOKENS,
    QUESTION,
    SCORES,
    SEP,
    STOP,
    Caption,
    assign,
    build_captions,
    positive_map,
    span_scores,
)

# Few ids, so that equal phrases and prefixes of others come up often.
IDS = st.integers(2000, 2003)


@st.composite
def asked(draw, most=30, longest=6):
    """Phrases, their owners in any order, and the names of the tags."""
    tags = draw(st.integers(1, 12))
    phrases = draw(st.lists(st.lists(IDS, min_size=1, max_size=longest), max_size=most))
    owners = [draw(st.integers(0, tags - 1)) for _ in phrases]
    return phrases, owners, [f"tag {i}" for i in range(tags)]


@st.composite
def scored(draw):
    """A caption, and token probabilities of few values, so that ties come up often."""
    phrases, owners, names = draw(asked(most=8).filter(lambda drawn: drawn[0]))
    caption = build_captions(phrases, owners, names=names)[0]
    queries, columns = draw(st.integers(0, 4)), len(caption) + draw(st.integers(0, 3))
    values = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=queries * columns, max_size=queries * columns)
    return caption, np.array(draw(values), np.float32).reshape(queries, columns)


class TestBuildCaptions:
    @given(asked(), st.integers(9, 40))
    @settings(deadline=None)
    def test_every_phrase_is_in_exactly_one_caption_and_belongs_to_the_first_tag(self, drawn, limit):
        phrases, owners, names = drawn
        captions = build_captions(phrases, owners, names=names, limit=limit)
        sent = [
            (tuple(caption.token_ids[i] for i in span), owner)
            for caption in captions
            for span, owner in zip(caption.spans, caption.owners, strict=True)
        ]
        first = {}
        for phrase, owner in zip(phrases, owners, strict=True):
            first[tuple(phrase)] = min(owner, first.get(tuple(phrase), owner))
        assert sorted(sent) == sorted(first.items())

    @given(asked(), st.integers(9, 40))
    @settings(deadline=None)
    def test_a_caption_is_phrases_with_periods_between_the_ends_and_within_the_limit(self, drawn, limit):
        phrases, owners, names = drawn
        for caption in build_captions(phrases, owners, names=names, limit=limit):
            spelt = [CLS]
            for span in caption.spans:
                assert span[0] == len(spelt)
                spelt += [*(caption.token_ids[i] for i in span), STOP]
            assert caption.token_ids == (*spelt, SEP)
            assert len(caption) <= limit
            assert list(caption.owners) == sorted(caption.owners)

    @given(asked())
    @settings(deadline=None)
    def test_the_answer_depends_on_the_arguments_alone(self, drawn):
        phrases, owners, names = drawn
        captions = build_captions(phrases, owners, names=names, limit=20)
        again = build_captions(tuple(map(tuple, phrases)), np.array(owners, np.int64), names=tuple(names), limit=20)
        assert captions == again
        assert {*captions} == {*again}  # text features are kept by caption

    def test_a_short_list_is_one_caption_in_the_order_asked(self):
        (caption,) = build_captions([[7], [5, 6], [7, 8]], [0, 1, 2], names=["cat", "remote control", "cat fish"])
        assert caption == Caption((CLS, 7, STOP, 5, 6, STOP, 7, 8, STOP, SEP), ((1,), (3, 4), (6, 7)), (0, 1, 2))

    def test_no_phrases_make_no_captions(self):
        assert build_captions([], [], names=[]) == []
        assert build_captions([], [], names=["cat"], limit=1) == []

    def test_a_phrase_fills_a_caption_up_to_the_limit_and_no_further(self):
        longest = [2000] * (MAX_TOKENS - 3)
        (caption,) = build_captions([longest], [0], names=["a long one"])
        assert len(caption) == MAX_TOKENS
        with pytest.raises(InputError, match=r"'a long one' has a phrase of 254 tokens.*room for 253; .* shorter"):
            build_captions([[*longest, 2000]], [0], names=["a long one"])
        with pytest.raises(InputError, match=r"tag 'x{57}\.\.\.' has"):
            build_captions([[*longest, 2000]], [0], names=["x" * 999])

    @pytest.mark.parametrize(
        ("phrases", "owners", "message"),
        [
            ([[5], []], [0, 1], "tag 'dog' has a phrase without tokens; give it a prompt"),
            ([[5, STOP, 6]], [1], "a phrase of tag 'dog' holds a delimiter"),
            ([[5, QUESTION]], [0], "a phrase of tag 'cat' holds a delimiter"),
            ([[5]], [2], r"owners must be in \[0, 2\), the tags asked for, got 2"),
            ([[5]], [-1], r"owners must be in \[0, 2\), the tags asked for, got -1"),
            ([[5]], [0, 1], "owners must have 1 entries, one per phrase, got 2"),
        ],
    )
    def test_what_cannot_be_asked_is_refused(self, phrases, owners, message):
        with pytest.raises(InputError, match=message):
            build_captions(phrases, owners, names=["cat", "dog"])


class TestPack:
    @given(st.lists(st.integers(1, 9), max_size=60), st.integers(9, 40))
    def test_groups_are_whole_and_no_more_than_first_fit_decreasing_needs(self, sizes, capacity):
        groups = pack(sizes, capacity)
        assert sorted(i for group in groups for i in group) == list(range(len(sizes)))
        assert all(sum(sizes[i] for i in group) <= capacity for group in groups)
        assert groups == sorted(sorted(group) for group in groups)
        assert -(-sum(sizes) // capacity) <= len(groups) <= first_fit_decreasing(sizes, capacity)

    @given(st.lists(st.integers(1, 5), min_size=1, max_size=80), st.integers(20, 60))
    def test_groups_with_some_room_differ_by_one_item_at_most(self, sizes, capacity):
        count = -(-sum(sizes) // capacity)
        assume(sum(sizes) <= count * (capacity - max(sizes)))
        totals = [sum(sizes[i] for i in group) for group in pack(sizes, capacity)]
        assert len(totals) == count
        assert max(totals) - min(totals) <= max(sizes)

    def test_first_fit_finds_what_balance_does_not(self):
        assert pack([3, 3, 2, 2, 2], capacity=6) == [[0, 1], [2, 3, 4]]

    def test_more_groups_than_the_sum_asks_for_where_nothing_fits(self):
        assert pack([4, 4, 4], capacity=6) == [[0], [1], [2]]
        assert pack([], capacity=6) == []

    @pytest.mark.parametrize("size", [0, 7])
    def test_an_item_without_room_is_refused(self, size):
        with pytest.raises(InputError, match=rf"sizes must be in \[1, 6\], the room of a group, got {size}"):
            pack([3, size], capacity=6)


def first_fit_decreasing(sizes, capacity):
    groups = []
    for size in sorted(sizes, reverse=True):
        for i, total in enumerate(groups):
            if total + size <= capacity:
                groups[i] += size
                break
        else:
            groups.append(size)
    return len(groups)


class TestScores:
    @given(scored())
    @settings(deadline=None)
    def test_span_scores_equal_a_loop(self, drawn):
        caption, probabilities = drawn
        for method, reduce in {"max": np.max, "mean": np.mean, "caption": np.max}.items():
            expected = [[reduce(row[list(span)]) for span in caption.spans] for row in probabilities]
            scores = span_scores(probabilities, caption, method=method)
            assert scores.dtype == np.float32
            shape = (len(probabilities), len(caption.spans))
            np.testing.assert_allclose(scores, np.array(expected).reshape(shape), atol=1e-7)

    @given(scored(), st.sampled_from([*SCORES]))
    @settings(deadline=None)
    def test_a_box_belongs_to_the_tag_with_the_best_span_and_ties_to_the_earlier(self, drawn, method):
        caption, probabilities = drawn
        found = assign(probabilities, caption, method=method)
        assert found.owners.shape == found.scores.shape == (len(probabilities),)
        assert (found.owners.dtype, found.scores.dtype) == (np.int64, np.float32)
        for query, scores in enumerate(span_scores(probabilities, caption, method=method)):
            by_tag = {}
            for owner, score in zip(caption.owners, scores, strict=True):
                by_tag[owner] = max(score, by_tag.get(owner, 0))
            tag = min(by_tag, key=lambda owner: (-by_tag[owner], owner))
            assert found.owners[query] == tag
            best = probabilities[query, : len(caption)].max() if method == "caption" else by_tag[tag]
            assert found.scores[query] == best

    @given(scored(), st.sampled_from([*SCORES]))
    @settings(deadline=None)
    def test_the_positive_map_is_the_spans_and_padding_is_not_read(self, drawn, method):
        caption, probabilities = drawn
        positions = positive_map(caption, len(caption) + 3)
        assert [tuple(np.flatnonzero(row)) for row in positions] == list(caption.spans)
        padded = np.pad(probabilities[:, : len(caption)], ((0, 0), (0, 5)), constant_values=1)
        expected, found = (assign(values, caption, method=method) for values in (probabilities, padded))
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.owners, expected.owners)

    def test_by_hand(self):
        # [CLS] red fire hydrant . hydrant . dog . [SEP]; the first two are prompts of tag 4.
        caption = Caption((CLS, 5, 6, 7, STOP, 7, STOP, 8, STOP, SEP), ((1, 2, 3), (5,), (7,)), (4, 4, 9))
        row = np.array([[0.9, 0.3, 0.0, 0.6, 0.8, 0.2, 0.0, 0.5, 0.0, 0.0]], np.float64)
        found = {method: assign(row, caption, method=method) for method in SCORES}
        assert {method: (a.owners.tolist(), a.scores.tolist()) for method, a in found.items()} == {
            "max": ([4], [pytest.approx(0.6)]),
            "mean": ([9], [pytest.approx(0.5)]),
            "caption": ([4], [pytest.approx(0.9)]),
        }

    def test_a_caption_without_phrases_has_no_scores(self):
        empty = Caption((CLS, SEP), (), ())
        assert span_scores(np.zeros((3, 2), np.float32), empty).shape == (3, 0)
        assert positive_map(empty, 4).shape == (0, 4)
        with pytest.raises(InputError, match=r"the caption has no phrase.*ask for at least one tag"):
            assign(np.zeros((3, 2), np.float32), empty)

    def test_wrong_arguments_are_refused(self):
        caption = Caption((CLS, 5, STOP, SEP), ((1,),), (0,))
        with pytest.raises(InputError, match='unknown score method "meen"; did you mean "mean"'):
            assign(np.zeros((1, 4), np.float32), caption, method="meen")
        with pytest.raises(InputError, match=r"shape \(any, 4\) or more columns, got \(1, 3\)"):
            span_scores(np.zeros((1, 3), np.float32), caption)
        with pytest.raises(InputError, match=r"shape \(any, 4\) or more columns, got \(4,\)"):
            span_scores(np.zeros(4, np.float32), caption)
        with pytest.raises(InputError, match="length must be at least 4, the tokens of the caption, got 3"):
            positive_map(caption, 3)

    @pytest.mark.parametrize("spans", [((),), ((1, 3),), ((3, 4),), ((3,), (1,)), ((1, 2), (2, 3)), ((-1,),)])
    def test_a_caption_with_impossible_spans_is_refused(self, spans):
        with pytest.raises(InputError, match="spans must be consecutive positions"):
            Caption((CLS, 5, 6, STOP, SEP), spans, (0,) * len(spans))

    def test_a_caption_needs_one_owner_per_span(self):
        with pytest.raises(InputError, match="owners must have 1 entries, one per span, got 2"):
            Caption((CLS, 5, STOP, SEP), ((1,),), (0, 1))
