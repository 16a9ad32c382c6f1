"""The vocabulary: what it refuses, what a part of it keeps, and files that come back as they went."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasa.errors import FormatError, InputError, OutputError
from rasa.types import KINDS
from rasa_ram.vocabulary import MAX_TAG_LENGTH, Vocabulary
from rasa_ram.vocabulary_files import read_vocabulary, write_vocabulary


@pytest.fixture
def pets():
    return Vocabulary(
        ("cat", "dog", "sofa"),
        thresholds=[0.5, 0.65, 1.0],
        translations={"zh": ("猫", "狗", "沙发"), "de": ("Katze", "Hund", "Sofa")},
        kinds=("object", "object", None),
        synonyms=(("kitty", "pussycat"), ("hound",), ()),
    )


@pytest.fixture(scope="module")
def published():
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("RASA_SHARED", root.parent / "shared")) / "reference" / "labels"
    if not folder.is_dir():
        pytest.skip(f"no published label lists in {folder}; set RASA_SHARED to the folder of reference/labels")
    return folder


def same(left, right):
    return left.fingerprint == right.fingerprint


# The value


def test_ids_count_from_zero_unless_given():
    assert Vocabulary(("b", "a")).ids.tolist() == [0, 1]
    assert Vocabulary(("b", "a"), ids=[7, 3]).ids.tolist() == [7, 3]


def test_columns_are_typed_and_cannot_be_written(pets):
    assert pets.thresholds.dtype == np.float32
    assert pets.ids.dtype == np.int64
    for column in (pets.thresholds, pets.ids):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 0
    with pytest.raises(TypeError):
        pets.translations["fr"] = ("chat", "chien", "canapé")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"names": ()}, "needs at least one tag, got none"),
        ({"names": "cat"}, "names must be a sequence of strings, got the single string 'cat'"),
        ({"names": ("cat", "dog", "cat")}, r"tag 'cat' stands at positions 0 and 2; .*allow_repeats=True"),
        ({"names": ("cat", " ")}, "tag 1 is empty"),
        ({"names": ("cat", "")}, "tag 1 is empty"),
        ({"names": ("cat", "dog ")}, "tag 1 has spaces around it: 'dog '"),
        ({"names": ("cat", "d|g")}, r'tag 1 holds "\|", which separates tags'),
        ({"names": ("cat", "d\ng")}, "tag 1 holds a control character"),
        ({"names": ("cat", 3)}, "tag 1 must be a string, got 3"),
        ({"names": ("cat", "x" * 10_000)}, rf"tag 1 has 10000 characters, at most {MAX_TAG_LENGTH} are allowed: 'xxx"),
        ({"ids": [0]}, r"ids must have shape \(2\), got \(1,\); one id per tag"),
        ({"ids": [4, 4]}, "ids must be distinct and not negative"),
        ({"ids": [-1, 4]}, "ids must be distinct and not negative"),
        ({"thresholds": [0.5]}, r"thresholds must have shape \(2\), got \(1,\); one threshold per tag"),
        ({"thresholds": [0.5, float("nan")]}, r"threshold of tag 'dog' \(position 1\) must be in \[0, 1\], got nan"),
        ({"thresholds": [0.5, 1.01]}, r"threshold of tag 'dog' \(position 1\) must be in \[0, 1\], got 1.01"),
        ({"translations": {"zh": ("猫",)}}, "translation 'zh' must have one entry per tag, 2, got 1"),
        ({"translations": {"zh": ("猫", "")}}, "translation 'zh': tag 1 is empty"),
        ({"translations": ["猫", "狗"]}, "translations must map a language to names, got list"),
        ({"kinds": ("object",)}, "kinds must have one entry per tag, 2, got 1"),
        ({"kinds": ("object", "thing")}, "kind of tag 'dog' must be one of object, scene, action, attribute or None"),
        ({"synonyms": ((),)}, "synonyms must have one entry per tag, 2, got 1"),
        ({"synonyms": ((), "hound")}, "synonyms of 'dog' must be a sequence of strings, got the single string"),
    ],
)
def test_a_malformed_table_is_refused(columns, message):
    with pytest.raises(InputError, match=message):
        Vocabulary(**{"names": ("cat", "dog"), **columns})


def test_the_longest_allowed_tag_is_allowed():
    assert len(Vocabulary(("x" * MAX_TAG_LENGTH,))) == 1


def test_repeats_are_allowed_where_the_list_says_so():
    twice = Vocabulary(("bank", "river", "bank"), allow_repeats=True)
    assert twice.ids.tolist() == [0, 1, 2]
    assert twice.positions(["bank"]) == [0, 2]
    assert twice.without(["bank"]).names == ("river",)
    assert twice.subset(["bank"]).ids.tolist() == [0, 2]


def test_a_subset_keeps_all_that_is_known_in_the_order_asked(pets):
    part = pets.subset(["sofa", "cat"])
    assert part.names == ("sofa", "cat")
    assert part.ids.tolist() == [2, 0]
    assert part.thresholds.tolist() == [1.0, 0.5]
    assert part.translations == {"de": ("Sofa", "Katze"), "zh": ("沙发", "猫")}
    assert part.kinds == (None, "object")
    assert part.synonyms == ((), ("kitty", "pussycat"))
    assert same(pets.without(["dog"]), pets.subset(["cat", "sofa"]))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cta"], r'tag "cta" is not in the vocabulary of 3 tags; did you mean "cat"\?'),
        (["hound"], 'tag "hound" is not in the vocabulary of 3 tags; it is a synonym of "dog"'),
        (["zzz"], 'tag "zzz" is not in the vocabulary of 3 tags$'),
        (["cat", "cat"], "tag 'cat' is asked for twice"),
        ("cat", r"got the single string 'cat'; pass \['cat'\]"),
        ([], "needs at least one tag, got none"),
    ],
)
def test_a_wrong_subset_is_refused(pets, names, message):
    with pytest.raises(InputError, match=message):
        pets.subset(names)


def test_nothing_left_is_refused(pets):
    with pytest.raises(InputError, match="needs at least one tag"):
        pets.without(["cat", "dog", "sofa"])


def test_rename(pets):
    renamed = pets.rename({"sofa": "couch"})
    assert renamed.names == ("cat", "dog", "couch")
    assert renamed.ids.tolist() == pets.ids.tolist()
    assert same(renamed.rename({"couch": "sofa"}), pets)
    assert pets.rename({"cat": "dog", "dog": "cat"}).names == ("dog", "cat", "sofa")
    with pytest.raises(InputError, match="tag 'dog' stands at positions 0 and 1"):
        pets.rename({"cat": "dog"})
    with pytest.raises(InputError, match='"cow" is not in the vocabulary'):
        pets.rename({"cow": "bull"})


def test_thresholds_by_number_by_row_by_name(pets):
    assert pets.with_thresholds(0).thresholds.tolist() == [0, 0, 0]
    assert pets.with_thresholds([0.1, 0.2, 0.3]).thresholds.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert pets.with_thresholds({"dog": 0.25}).thresholds.tolist() == [0.5, 0.25, 1.0]
    assert pets.with_thresholds(None).thresholds is None
    assert pets.thresholds.tolist() == [0.5, np.float32(0.65), 1.0]
    with pytest.raises(InputError, match=r"must be in \[0, 1\], got 1.5"):
        pets.with_thresholds({"dog": 1.5})
    with pytest.raises(InputError, match='did you mean "dog"'):
        pets.with_thresholds({"dgo": 0.5})
    with pytest.raises(InputError, match="no thresholds to change by name"):
        pets.with_thresholds(None).with_thresholds({"dog": 0.5})


def test_the_fingerprint_sees_every_column(pets):
    others = [
        pets.rename({"cat": "tomcat"}),
        pets.with_thresholds({"cat": 0.51}),
        pets.subset(["dog", "cat", "sofa"]),
        Vocabulary(pets.names, thresholds=pets.thresholds, translations=pets.translations, kinds=pets.kinds),
        Vocabulary(pets.names),
    ]
    assert len({pets.fingerprint, *(other.fingerprint for other in others)}) == 6


# Files


@pytest.mark.parametrize("ending", [".csv", ".json"])
def test_a_file_comes_back_as_it_went(pets, tmp_path, ending):
    for number, table in enumerate((pets, Vocabulary(("x",)), pets.subset(["sofa", "cat"]))):
        path = tmp_path / f"{number}{ending}"
        write_vocabulary(table, path)
        assert same(read_vocabulary(path), table)
    assert len(list(tmp_path.iterdir())) == 3  # and no temporary file stays


def test_repeats_come_back(tmp_path):
    twice = Vocabulary(("bank", "bank"), allow_repeats=True)
    for name, options in (("v.json", {}), ("v.csv", {"allow_repeats": True})):
        write_vocabulary(twice, tmp_path / name)
        assert same(read_vocabulary(tmp_path / name, **options), twice)
    with pytest.raises(FormatError, match=r"v.csv:3: the tag 'bank' stands in line 2 already"):
        read_vocabulary(tmp_path / "v.csv")


tags = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="|"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(tags, min_size=1, max_size=6, unique=True),
    thresholds=st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6),
    kinds=st.lists(st.sampled_from([*KINDS, None]), min_size=6, max_size=6),
    synonyms=st.lists(st.lists(tags, max_size=3), min_size=6, max_size=6),
)
def test_any_table_comes_back(tmp_path_factory, names, thresholds, kinds, synonyms):
    count = len(names)
    table = Vocabulary(
        tuple(names),
        thresholds=thresholds[:count],
        kinds=tuple(kinds[:count]),
        synonyms=tuple(map(tuple, synonyms[:count])),
        translations={"xx": tuple(reversed(names))},
    )
    for ending in ("csv", "json"):
        path = tmp_path_factory.getbasetemp() / f"any.{ending}"
        write_vocabulary(table, path)
        read = read_vocabulary(path)
        assert same(read, table)
        np.testing.assert_array_equal(read.thresholds, table.thresholds)


def test_text_files_side_by_side(tmp_path):
    (tmp_path / "tags.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    (tmp_path / "zh.txt").write_text("猫 \n猫\n", encoding="utf-8")
    (tmp_path / "numbers.txt").write_text("0.5\n1e-1", encoding="utf-8")
    table = read_vocabulary(
        tmp_path / "tags.txt", thresholds=tmp_path / "numbers.txt", translations={"zh": tmp_path / "zh.txt"}
    )
    assert table.names == ("cat", "dog")
    assert table.thresholds.tolist() == [0.5, np.float32(0.1)]
    assert table.translations == {"zh": ("猫", "猫")}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.txt", b"", "v.txt:1: the tag is empty"),
        ("v.txt", b"cat\n\ndog\n", "v.txt:2: the tag is empty"),
        ("v.txt", b"cat\ndog\n\n", "v.txt:3: the tag is empty"),
        ("v.txt", b"cat\ndog\ncat\n", "v.txt:3: the tag 'cat' stands in line 1 already; pass allow_repeats=True"),
        ("v.txt", b"cat\n\xff\xfe\n", "v.txt:2: not UTF-8 .*; save the file as UTF-8"),
        ("v.txt", b"cat\n" + b"x" * 10_000, "v.txt:2: the tag has 10000 characters, at most 200 are allowed"),
        ("v.csv", b"", 'v.csv:1: the header must have the column "name"'),
        ("v.csv", b"nmae\ncat\n", r'v.csv:1: unknown column "nmae"; did you mean "name"\?'),
        ("v.csv", b"name,name\ncat,cat\n", "v.csv:1: the header must have .* each column once"),
        ("v.csv", b"name,threshold\ncat,0.5\ndog\n", "v.csv:3: expected 2 columns as in the header, got 1"),
        ("v.csv", b"name,threshold\ncat,nan\n", r"v.csv:2: a threshold must be a number in \[0, 1\], got 'nan'"),
        ("v.csv", b"name,threshold\ncat,high\n", r"v.csv:2: a threshold must be a number in \[0, 1\], got 'high'"),
        ("v.csv", b"name,id\ncat,-3\n", "v.csv:2: an id must be a whole number from 0, got '-3'"),
        ("v.csv", b"name,kind\ncat,animal\n", "v.csv:2: a kind must be one of object, .* or empty, got 'animal'"),
        ("v.csv", b"name,id\ncat,3\ndog,3\n", "v.csv: ids must be distinct"),
        ("v.csv", b"name\n", "v.csv: names: a vocabulary needs at least one tag, got none"),
        ("v.csv", b'name\n"cat\n', "v.csv:2: unexpected end of data"),
        ("v.csv", b"name\ncat\n\xe9\n", "v.csv:3: not UTF-8"),
        ("v.json", b'["cat",\n"dog"', "v.json:2: no valid JSON: "),
        ("v.json", b"[" * 100_000, "v.json:1: no valid JSON: nested too deeply"),
        ("v.json", b'["cat", "cat"]', "v.json: tag 'cat' stands at positions 0 and 1"),
        ("v.json", b'["cat", null]', "v.json: names: tag 1 must be a string, got None"),
        ("v.json", b"[]", "v.json: names: a vocabulary needs at least one tag, got none"),
        ("v.json", b'{"names": ["cat"]}', 'v.json: expected a list of names, or an object with "schema"'),
        ("v.json", b'{"schema": "rasa.vocabulary/1", "nams": ["cat"]}', 'unknown key "nams"; did you mean "names"'),
        ("v.json", b'{"schema": "rasa.vocabulary/1"}', "v.json: .*names"),
        ("v.json", b'{"schema": "rasa.vocabulary/1", "names": 3}', "v.json: "),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_vocabulary(tmp_path / name)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (b"0.5\n", r"n.txt has 1 lines, expected 2, one per tag of .*tags.txt"),
        (b"0.5\n0.6\n0.7\n", "n.txt has 3 lines, expected 2"),
        (b"0.5\nNaN\n", r"n.txt:2: a threshold must be a number in \[0, 1\], got 'NaN'"),
        (b"0.5\n-0.1\n", r"n.txt:2: a threshold must be a number in \[0, 1\], got '-0.1'"),
        (b"0.5\n\n", r"n.txt:2: a threshold must be a number in \[0, 1\], got ''"),
    ],
)
def test_a_malformed_threshold_file_is_refused(tmp_path, numbers, message):
    (tmp_path / "tags.txt").write_text("cat\ndog\n", encoding="utf-8")
    (tmp_path / "n.txt").write_bytes(numbers)
    with pytest.raises(FormatError, match=message):
        read_vocabulary(tmp_path / "tags.txt", thresholds=tmp_path / "n.txt")


def test_a_file_that_is_not_there_or_of_no_known_format(pets, tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none.txt: No such file"):
        read_vocabulary(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"must end in one of .txt, .csv, .json"):
        read_vocabulary(tmp_path / "tags.yaml")
    with pytest.raises(InputError, match=r"must end in one of .csv, .json"):
        write_vocabulary(pets, tmp_path / "tags.txt")
    with pytest.raises(OutputError, match=r"cannot write .*; choose a writable folder"):
        write_vocabulary(pets, tmp_path / "no" / "folder.csv")


# The published lists


def test_the_list_of_ram(published, tmp_path):
    table = read_vocabulary(
        published / "ram_tag_list.txt",
        thresholds=published / "ram_tag_list_threshold.txt",
        translations={"zh": published / "ram_tag_list_chinese.txt"},
    )
    assert len(table) == 4585
    assert table.names[0] == "3D CG rendering"
    assert table.names[-1] == "zoo"
    values, counts = np.unique(table.thresholds, return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert found[np.float32(0.65)] == 3414
    assert found[np.float32(0.8)] == 735
    assert found[1.0] == 10
    assert values[0] == np.float32(0.45)
    assert table.translations["zh"][1] == "3d眼镜"
    for name in ("ram.csv", "ram.json"):
        write_vocabulary(table, tmp_path / name)
        assert same(read_vocabulary(tmp_path / name), table)


def test_the_list_of_tag2text_repeats_words(published):
    path = published / "tag2text_ori_tag_list.txt"
    table = read_vocabulary(path, allow_repeats=True)
    assert len(table) == 3429
    assert len(set(table.names)) == 3313
    assert [table.names[i] for i in (2701, 2828, 1167)] == ["person", "man", "woman"]
    assert table.ids.tolist() == list(range(3429))
    with pytest.raises(FormatError, match=r"tag2text_ori_tag_list.txt:\d+: the tag '.*' stands in line \d+ already"):
        read_vocabulary(path)


def test_written_json_is_plain(pets, tmp_path):
    write_vocabulary(pets, tmp_path / "v.json")
    data = json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))
    assert data["schema"] == "rasa.vocabulary/1"
    assert data["thresholds"] == [0.5, 0.65, 1.0]
