"""Toy scenes are drawn as they are told: pixels, masks, boxes, relations, tags and captions agree."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa.errors import InputError
from rasa_ram.toy.captions import parse_caption, write_captions
from rasa_ram.toy.drawing import SIDE, coverage
from rasa_ram.toy.scenes import RADII, draw_scene
from rasa_ram.toy.shapes import outline
from rasa_ram.toy.words import (
    COLOURS,
    HELD_OUT_PAIRS,
    NEW_COLOURS,
    NEW_SHAPES,
    RELATIONS,
    SHAPES,
    SYNONYMS,
    UNSEEN_SYNONYMS,
    colour_values,
    full_vocabulary,
    new_pairs,
    new_tags,
    toy_vocabulary,
)

indices = st.integers(0, 10_000)
splits = st.sampled_from(["seen", "all", "new"])


@given(index=indices, split=splits)
@settings(max_examples=30, deadline=None)
def test_a_scene_depends_on_its_number_alone(index, split):
    first = draw_scene(3, index, split=split)
    draw_scene(3, index + 1, split=split)
    second = draw_scene(3, index, split=split)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.masks, second.masks)
    assert (first.things, first.tags) == (second.things, second.tags)
    assert not np.array_equal(first.pixels, draw_scene(4, index, split=split).pixels)


@given(index=indices, split=splits)
@settings(max_examples=60, deadline=None)
def test_boxes_are_tight_around_masks_that_share_no_pixel(index, split):
    scene = draw_scene(1, index, split=split)
    assert scene.pixels.shape == (SIDE, SIDE, 3)
    assert scene.pixels.dtype == np.uint8
    assert scene.masks.sum(axis=0).max() <= 1
    assert scene.boxes.shape == (len(scene.things), 4)
    for mask, (left, top, right, bottom) in zip(scene.masks, scene.boxes.astype(int), strict=True):
        assert mask.sum() >= 20
        inside = mask[top:bottom, left:right]
        assert inside.sum() == mask.sum()
        assert inside.any(axis=0)[[0, -1]].all()
        assert inside.any(axis=1)[[0, -1]].all()


@given(index=indices)
@settings(max_examples=60, deadline=None)
def test_the_plain_parts_of_an_object_have_its_colour(index):
    scene = draw_scene(2, index, split="all")
    for thing, mask in zip(scene.things, scene.masks, strict=True):
        core = mask & np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1)
        if thing.texture is None and core.sum() >= 10:
            mean = np.median(scene.pixels[core].astype(float), axis=0)
            distances = {name: np.abs(mean - value).max() for name, value in colour_values().items()}
            assert distances[thing.colour] <= 25


@given(index=indices)
@settings(max_examples=100, deadline=None)
def test_relations_hold_in_the_picture(index):
    scene = draw_scene(5, index)
    centres = np.array([thing.centre for thing in scene.things])
    radii = np.array([thing.radius for thing in scene.things])
    gaps = np.abs(centres[0] - centres[-1])
    holds = {
        "alone": len(centres) == 1,
        "above": len(centres) == 2 and centres[0, 1] + radii[0] < centres[1, 1] - radii[1] + 1 and gaps[0] <= 20,
        "beside": len(centres) == 2 and centres[0, 0] + radii[0] < centres[1, 0] - radii[1] + 1 and gaps[1] <= 20,
        "inside": len(centres) == 2 and bool((gaps + radii[-1] <= radii[0]).all()),
        "overlapping": len(centres) == 2 and np.hypot(*gaps) < radii.sum() and not (gaps + radii[1] <= radii[0]).all(),
        "diagonal": len(centres) == 2 and bool((gaps >= 20).all()),
        "row": len(centres) == 3 and bool((np.diff(centres[:, 0]) >= 12).all()) and np.ptp(centres[:, 1]) <= 7,
        "column": len(centres) == 3 and bool((np.diff(centres[:, 1]) >= 12).all()) and np.ptp(centres[:, 0]) <= 7,
    }
    assert set(holds) == set(RELATIONS)
    assert holds[scene.relation]


@given(index=indices)
@settings(max_examples=60, deadline=None)
def test_sizes_are_told_apart_and_objects_lie_in_the_picture(index):
    for thing in draw_scene(6, index).things:
        assert (thing.radius <= RADII["small"]) == (thing.size == "small")
        assert all(thing.radius <= c <= SIDE - thing.radius for c in thing.centre)


@given(index=indices, split=splits)
@settings(max_examples=100, deadline=None)
def test_captions_say_what_is_true_and_the_first_says_all(index, split):
    scene = draw_scene(7, index, split=split)
    whole, *brief = write_captions(scene, np.random.default_rng(index))
    assert set(parse_caption(whole)) == set(scene.tags)
    for caption in brief:
        assert set(parse_caption(caption)) <= set(scene.tags)


def test_every_synonym_is_parsed_as_its_tag_and_none_is_ambiguous():
    words = [(word, tag) for tag, row in SYNONYMS.items() for word in row]
    for word, tag in words:
        assert parse_caption(f"a picture with {word} somewhere") == (tag,)
    assert len({word for word, _ in words}) == len(words)


# What training never sees


def test_no_scene_of_training_has_a_held_out_pair_or_a_new_word():
    held_out = {f"{colour} {shape}" for colour, shape in HELD_OUT_PAIRS} | set(new_tags())
    drawn = {tag for index in range(250) for tag in draw_scene(1, index).tags}
    assert not drawn & held_out
    assert drawn <= set(toy_vocabulary().names)


def test_no_caption_of_training_says_an_unseen_synonym():
    said = " / ".join(
        caption
        for index in range(100)
        for caption in write_captions(draw_scene(1, index), np.random.default_rng(index))
    )
    for word in UNSEEN_SYNONYMS:
        assert re.search(rf"\b{word}\b", said) is None
        assert word not in full_vocabulary()
    assert not set(UNSEEN_SYNONYMS) & {word for row in SYNONYMS.values() for word in row}


def test_the_vocabularies_have_the_words_they_should():
    own, full = toy_vocabulary(), full_vocabulary()
    assert len(own) >= 200
    assert full.names[: len(own)] == own.names
    assert len(full) - len(own) == len(HELD_OUT_PAIRS) == len(set(HELD_OUT_PAIRS))
    assert not set(own.names) & {f"{colour} {shape}" for colour, shape in HELD_OUT_PAIRS}
    for word in (*SHAPES, *COLOURS):  # what a held-out pair consists of is known from others
        assert sum(word in pair for pair in HELD_OUT_PAIRS) == 2
        assert word in own
    assert len(SHAPES) >= 12
    assert len(COLOURS) >= 10
    assert set(UNSEEN_SYNONYMS.values()) <= set(own.names)


def test_there_are_thirty_new_tags_and_every_scene_of_one_has_it():
    assert len(new_tags()) == len(set(new_tags())) == 30
    assert not set(new_tags()) & set(full_vocabulary().names)
    assert all(colour in NEW_COLOURS or shape in NEW_SHAPES for colour, shape in new_pairs())
    for tag in new_tags():
        for index in range(3):
            assert tag in draw_scene(8, index, split="new", new_tag=tag).tags


@pytest.mark.parametrize("shape", [*SHAPES, *NEW_SHAPES])
def test_shapes_fill_their_circle_and_look_different(shape):
    for polygon in outline(shape):
        assert np.hypot(*polygon.T).max() <= 1.01
    covered = coverage(shape, (32, 32), 20)
    assert 0.1 < covered.mean() / (np.pi * 20**2 / SIDE**2) < 1
    for other in {*SHAPES, *NEW_SHAPES} - {shape}:
        assert np.abs(covered - coverage(other, (32, 32), 20)).sum() > 80


def test_what_does_not_exist_is_named():
    with pytest.raises(InputError, match=r"no shape 'blob'; it has arrow, "):
        outline("blob")
    with pytest.raises(InputError, match="split must be one of seen, all, new, got 'test'"):
        draw_scene(0, 0, split="test")
    with pytest.raises(InputError, match="counted from 0, got -1 and 0"):
        draw_scene(-1, 0)
    with pytest.raises(InputError, match="'blob' is none of the toy world's new tags"):
        draw_scene(0, 0, split="new", new_tag="blob")
    with pytest.raises(InputError, match=r'new_tag is for the split "new"'):
        draw_scene(0, 0, new_tag="key")
