"""Photos with tags from folders and tables, and how they are parted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasa.errors import FormatError, InputError
from rasa_ram.data.own_tags import TaggedPhoto, read_tagged_photos, split_photos, tag_counts, to_records
from rasa_ram.vocabulary import Vocabulary

TAGS = st.sets(st.sampled_from(["cat", "dog", "owl", "yak"]))


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def table(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_folder_for_each_tag(tmp_path):
    touch(tmp_path, "cat/2.jpg", "cat/old/1.PNG", "dog/1.webp", "dog/notes.md")
    assert read_tagged_photos(tmp_path) == [
        TaggedPhoto("cat/2.jpg", ("cat",)),
        TaggedPhoto("cat/old/1.PNG", ("cat",)),
        TaggedPhoto("dog/1.webp", ("dog",)),
    ]


def test_a_text_file_beside_each_photo(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "deep/c.jpg")
    table(tmp_path / "a.txt", "cat\n\n hot dog \ncat\n")
    table(tmp_path / "b.txt", "")
    assert [photo.tags for photo in read_tagged_photos(tmp_path)] == [("cat", "hot dog"), (), ()]


@pytest.mark.parametrize(
    "text",
    [
        "image,tag\na.jpg,cat\na.jpg,hot dog\nb.jpg,\n",
        "file_name,tags,note\na.jpg,cat|hot dog,x\nb.jpg,,y\n",
        'path,tags\na.jpg,"cat, hot dog"\nb.jpg,\n',
        "\ufeffid,tags\na.jpg,cat;hot dog\nb.jpg,\n",
    ],
)
def test_tables(tmp_path, text):
    photos = read_tagged_photos(table(tmp_path / "t.csv", text))
    assert photos == [TaggedPhoto("a.jpg", ("cat", "hot dog")), TaggedPhoto("b.jpg", ())]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\na.jpg\n", r't.csv, line 1: expected the columns "tag" or "tags" and one of image'),
        ("image,tag\na.jpg,cat\n,dog\n", "t.csv, line 3: expected a photo and its tags"),
        ("image,tag\na.jpg\n", "t.csv, line 2: expected a photo and its tags"),
        ("image,tag\na.jpg,a\x07b\n", "t.csv, line 2: a tag holds a control character"),
        ('image,tag\na.jpg,"cat\n', "t.csv is not a readable CSV file"),
    ],
)
def test_a_malformed_table_is_named(tmp_path, text, message):
    with pytest.raises(FormatError, match=message):
        read_tagged_photos(table(tmp_path / "t.csv", text))


def test_nothing_to_learn_from_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no photo with a tag; make a folder for each tag"):
        read_tagged_photos(tmp_path)
    with pytest.raises(InputError, match=r"neither a folder of photos nor a .csv file"):
        read_tagged_photos(tmp_path / "absent")
    touch(tmp_path, "cat/1.jpg", "loose.jpg")
    with pytest.raises(InputError, match=r"loose.jpg has no tag; put it into a folder named for its tag"):
        read_tagged_photos(tmp_path)


def test_synonyms_and_repeated_names_become_rows():
    words = Vocabulary(("cat", "crane", "crane"), synonyms=(("kitty",), (), ()), allow_repeats=True)
    photos = [TaggedPhoto("a.jpg", ("kitty", "cat", "crane")), TaggedPhoto("b.jpg", ())]
    assert [record.tag_ids for record in to_records(photos, words)] == [(0, 1, 2), ()]
    with pytest.raises(InputError, match=r"tag 'dog' of a.jpg is not in the vocabulary"):
        to_records([TaggedPhoto("a.jpg", ("dog",))], words)


@given(st.lists(TAGS, max_size=30), st.floats(0, 0.9), st.integers(0, 9))
def test_photos_are_parted_and_none_is_lost(tags, share, seed):
    photos = [TaggedPhoto(f"{n}.jpg", tuple(sorted(names))) for n, names in enumerate(tags)]
    learn, check = split_photos(photos, share=share, seed=seed)
    assert sorted([*learn, *check], key=lambda photo: int(photo.path[:-4])) == photos
    assert split_photos(photos, share=share, seed=seed) == (learn, check)
    assert tag_counts(learn).keys() == tag_counts(photos).keys()


def test_the_share_is_kept():
    photos = [TaggedPhoto(f"{n}.jpg", ("cat" if n < 50 else "dog",)) for n in range(60)]
    learn, check = split_photos(photos, share=0.2, seed=0)
    assert tag_counts(check) == {"cat": 10, "dog": 2}
    assert split_photos(photos, share=0.2, seed=1)[1] != check
    with pytest.raises(InputError, match=r"must be in \[0, 1\), got 1"):
        split_photos(learn, share=1, seed=0)
