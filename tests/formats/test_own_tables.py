"""The formats that hold nearly all that rasa knows: tags as CSV and Parquet, Hugging Face datasets, WebDataset."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from rasa import Result, Tags
from rasa.errors import FormatError, InputError, OutputError
from rasa.formats.hf_datasets import read_hf_datasets, write_hf_datasets
from rasa.formats.samples import Sample
from rasa.formats.tag_parquet import read_tags_parquet, write_tags_parquet
from rasa.formats.tag_table import read_tags_csv, write_tags_csv
from rasa.formats.webdataset import read_webdataset, write_webdataset
from tests.formats.samples import assert_same, classes_of, datasets, named_samples, sample_of

WHOLE = {"hf-datasets": (write_hf_datasets, read_hf_datasets), "webdataset": (write_webdataset, read_webdataset)}
TAGS = {"tags-csv": (write_tags_csv, read_tags_csv), "tags-parquet": (write_tags_parquet, read_tags_parquet)}
ALL = {**WHOLE, **TAGS}
PEERS = Path(os.environ.get("RASA_PEER_PYTHON", sys.executable))


def classes_for(name, samples):
    if name in TAGS:
        return sorted({tag for sample in samples for tag in sample.result.tags.names})
    return classes_of(samples)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def scored(tags):
    return dict(zip(tags.names, tags.scores.tolist(), strict=True))


@pytest.mark.parametrize("name", WHOLE)
def test_all_that_is_known_comes_back(name, tmp_path):
    write, read = WHOLE[name]
    samples = list(named_samples().values())
    report = write(tmp_path / "out", samples, classes=classes_of(samples))
    found = list(read(tmp_path / "out"))
    assert_same(found, samples)
    assert report.to_dict() == {
        "images": len(samples),
        "objects": sum(len(sample.result.instances) for sample in samples),
        "lost": {},
        "worst_iou": None,
    }
    by_name = {sample.file_name: sample for sample in found}
    for sample in samples:
        assert by_name[sample.file_name].id == sample.id
        assert by_name[sample.file_name].read_bytes() == sample.read_bytes()


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=datasets())
def test_any_dataset_comes_back(name, tmp_path_factory, data):
    classes, samples = data
    folder = tmp_path_factory.mktemp("any") / "out"
    write, read = WHOLE[name]
    write(folder, samples, classes=classes)
    if samples:
        assert_same(read(folder), samples)


@pytest.mark.parametrize("name", TAGS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=datasets(masks=False))
def test_any_tags_come_back(name, tmp_path_factory, data):
    _, samples = data
    folder = tmp_path_factory.mktemp("any") / "out"
    write, read = TAGS[name]
    report = write(folder, samples, classes=classes_for(name, samples))
    found = list(read(folder))
    assert [(s.id, s.file_name, s.split) for s in found] == [(s.id, s.file_name, s.split) for s in samples]
    assert [scored(s.result.tags) for s in found] == [scored(s.result.tags) for s in samples]
    assert report.lost["objects"] == sum(len(sample.result.instances) for sample in samples)
    if name == "tags-csv":
        for one, other in zip(found, samples, strict=True):
            assert one.result.tags.names == other.result.tags.names
            assert any(other.result.tags.kinds or ()) is bool(one.result.tags.kinds)
    else:
        assert report.lost["kinds of tags"] == sum(bool(k) for s in samples for k in s.result.tags.kinds or ())


@pytest.mark.parametrize("name", ALL)
def test_the_same_samples_give_the_same_bytes(name, tmp_path):
    samples = list(named_samples().values())
    for out in ("one", "two"):
        ALL[name][0](tmp_path / out, iter(samples), classes=classes_for(name, samples))
    assert files(tmp_path / "one") == files(tmp_path / "two") != {}


@pytest.mark.parametrize("name", ALL)
def test_a_folder_with_something_in_it_is_left_alone(name, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(OutputError, match="not empty"):
        ALL[name][0](tmp_path / "out", [], classes=["dog"])
    assert files(tmp_path) == {"out/mine": b"keep"}


@pytest.mark.parametrize("name", ALL)
def test_a_class_that_is_not_listed_is_refused_and_nothing_is_left(name, tmp_path):
    sample = sample_of(None, ["dog"], size=(4, 4), tags=Tags.of(["dog"]))
    with pytest.raises(InputError, match="'dog', which is not among the 1 classes"):
        ALL[name][0](tmp_path / "out", [sample], classes=["cat"])
    with pytest.raises(InputError, match="distinct names"):
        ALL[name][0](tmp_path / "out", [sample], classes=["dog", "dog"])
    assert files(tmp_path) == {}


@pytest.mark.parametrize("name", ALL)
def test_a_missing_dataset_is_named(name, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        list(ALL[name][1](tmp_path / "nowhere"))


def test_a_row_per_tag(tmp_path):
    tags = Tags(("dog", 'a "b", c'), np.array([0.9, 0.1], np.float32), None, ("object", ""))
    samples = [sample_of(None, (), size=(3, 5), tags=tags), sample_of(None, (), size=(3, 5), seed=1, split="val")]
    write_tags_csv(tmp_path / "out", samples, classes=["dog", 'a "b", c', "cat"])
    one, two = (f"{s.id},{s.file_name},{s.split},3,5," for s in samples)
    header = "id,file_name,split,height,width,tag,score,kind"
    assert (tmp_path / "out" / "tags.csv").read_text().split("\n") == [
        header,
        f"{one}dog,0.9,object",
        f'{one}"a ""b"", c",0.1,',
        f"{two},,",
        "",
    ]
    assert json.loads((tmp_path / "out" / "classes.json").read_text()) == ["dog", 'a "b", c', "cat"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,b.jpg,train,3,5", "line 2: expected the 8 columns"),
        ("a,b.jpg,train,3,x,dog,0.5,", "whole numbers of pixels, got 'x'"),
        ("a,b.jpg,train,3,5,dog,1.5,", "scores must be in"),
        ("a,b.jpg,train,3,5,dog,half,", "could not convert"),
        ("a,b.jpg,train,3,5,dog,0.5,thing", "kinds must be of"),
        ("a,b.jpg,trian,3,5,dog,0.5,", "split must be one of"),
        ("a,../b.jpg,train,3,5,dog,0.5,", "plain name"),
        ("a,b.jpg,train,3,5,dog,0.5,\na,b.jpg,train,3,5,dog,0.5,", "distinct"),
        ('a,b.jpg,train,3,5,"dog,0.5,', "no CSV in UTF-8"),
        ("a,b.jpg,train,3,5,\ud8ff,0.5,", "no CSV in UTF-8"),
    ],
)
def test_a_malformed_table_is_named_with_its_line(tmp_path, line, message):
    header = "id,file_name,split,height,width,tag,score,kind\n"
    (tmp_path / "tags.csv").write_text(header + line + "\n", encoding="utf-8", errors="surrogatepass")
    with pytest.raises(FormatError, match=message):
        list(read_tags_csv(tmp_path))


def test_zeros_and_ones_for_every_class(tmp_path):
    tags = Tags(("dog", "cat"), np.array([0.75, 0.0], np.float32))
    write_tags_parquet(tmp_path / "out", [sample_of(None, (), size=(3, 5), tags=tags)], classes=["ant", "cat", "dog"])
    table = pq.read_table(tmp_path / "out" / "tags.parquet").to_pylist()[0]
    assert (table["labels"], table["scores"], table["height"], table["width"]) == ([0, 1, 1], [0, 0, 0.75], 3, 5)


def test_shards_keep_their_size(tmp_path):
    samples = [sample_of(None, (), size=(16, 16), seed=seed) for seed in range(12)]
    write_webdataset(tmp_path / "out", samples, classes=[], max_shard_bytes=8000)
    shards = sorted((tmp_path / "out").glob("*.tar"))
    assert len(shards) > 3
    # tarfile fills up to records of 10240 bytes.
    assert all(path.stat().st_size <= 10240 for path in shards)
    assert_same(read_webdataset(tmp_path / "out"), samples)
    with tarfile.open(shards[0]) as tar:
        members = tar.getmembers()
    assert [member.name for member in members][:3] == ["000000000.png", "000000000.json", "000000001.png"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


def test_files_of_images_are_numbered_of_their_number(tmp_path):
    samples = [sample_of(None, (), size=(16, 16), seed=seed, split="val") for seed in range(6)]
    write_hf_datasets(tmp_path / "out", samples, classes=[], max_file_bytes=1500)
    names = sorted(path.name for path in (tmp_path / "out" / "data").iterdir())
    assert names == [f"validation-{number:05d}-of-{len(names):05d}.parquet" for number in range(len(names))]
    assert len(names) == 3
    assert_same(read_hf_datasets(tmp_path / "out"), samples)


@pytest.mark.parametrize(
    ("write", "option"), [(write_hf_datasets, "max_file_bytes"), (write_webdataset, "max_shard_bytes")]
)
def test_a_limit_of_nothing_is_refused(tmp_path, write, option):
    with pytest.raises(InputError, match=f"{option} must be at least 1, got 0"):
        write(tmp_path / "out", [], classes=[], **{option: 0})


@pytest.mark.parametrize("name", WHOLE)
def test_an_image_that_is_not_given_is_counted(name, tmp_path):
    sample = sample_of(None, ["dog"], size=(4, 4))
    bare = Sample(sample.id, sample.file_name, sample.result, sample.split)
    failed = Sample("", "x.jpg", Result("x", (0, 0), failure=object()))
    report = WHOLE[name][0](tmp_path / "out", [bare, failed], classes=["dog"])
    assert report.lost == {"image files that were not given": 1, "images that failed": 1}
    (found,) = WHOLE[name][1](tmp_path / "out")
    assert found.read_bytes is None


@pytest.mark.parametrize("name", ["hf-datasets", "tags-parquet", "webdataset", "tags-csv"])
@pytest.mark.parametrize("how", ["cut", "noise", "empty"])
def test_a_damaged_file_is_a_format_error(name, how, tmp_path):
    samples = list(named_samples().values())
    ALL[name][0](tmp_path / "out", samples, classes=classes_for(name, samples))
    patterns = {"hf-datasets": "data/train-*", "webdataset": "train-*"}
    (path,) = (tmp_path / "out").glob(patterns.get(name, "tags.*"))
    data = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, len(data), np.uint8).tobytes()
    path.write_bytes({"cut": data[: len(data) // 2 + 5], "noise": noise, "empty": b""}[how])
    if name == "tags-csv" and how == "empty":
        assert list(read_tags_csv(tmp_path / "out")) == []
        return
    with pytest.raises(FormatError, match=r"tags|train"):
        list(ALL[name][1](tmp_path / "out"))


def bad_label(change):
    label = {
        "id": "a",
        "file_name": "a.jpg",
        "split": "train",
        "category": [0],
        "result": sample_of(np.ones((1, 2, 2), np.bool_), ["dog"]).result.to_dict(),
    }
    change(label)
    return json.dumps(label).encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "000.json.*JSONDecodeError"),
        (b"[" * 100_000, "000.json.*RecursionError"),
        (b"[]", "TypeError"),
        (bad_label(lambda label: label.pop("id")), "KeyError: 'id'"),
        (bad_label(lambda label: label.update(file_name="../../x")), "plain name"),
        (bad_label(lambda label: label["result"].update(size=[2**30, 2**30])), "1073741824 x 1073741824 pixels"),
        (
            bad_label(
                lambda label: (
                    label["result"]["instances"].update(masks=[{"size": [10**4, 10**4], "counts": "0"}] * 999)
                    or label["result"].update(size=[10**4, 10**4])
                )
            ),
            "999 masks of 10000 x 10000 pixels take more",
        ),
    ],
)
def test_a_malformed_sample_is_named_with_its_member(tmp_path, text, message):
    import io

    with tarfile.open(tmp_path / "train-000000.tar", "w") as tar:
        header = tarfile.TarInfo("000.json")
        header.size = len(text)
        tar.addfile(header, io.BytesIO(text))
    with pytest.raises(FormatError, match=message):
        list(read_webdataset(tmp_path))


def test_a_link_in_a_shard_is_refused(tmp_path):
    with tarfile.open(tmp_path / "train-000000.tar", "w") as tar:
        header = tarfile.TarInfo("000.json")
        header.type, header.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(header)
    with pytest.raises(FormatError, match=r"'000\.json' is no plain file"):
        list(read_webdataset(tmp_path))


def peer(code, *packages):
    """Run code where the packages are: in ``RASA_PEER_PYTHON``, else here; skip where they are absent."""
    python = os.environ.get("RASA_PEER_PYTHON", sys.executable)
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    probe = f"import importlib.util as u, sys; sys.exit(any(u.find_spec(p) is None for p in {packages!r}))"
    if subprocess.run([python, "-c", probe], check=False).returncode:
        pytest.skip(f"no {' and '.join(packages)} here; set RASA_PEER_PYTHON to a Python that has it")
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_datasets_reads_the_parquet_files(tmp_path):
    samples = list(named_samples().values())
    classes = classes_of(samples)
    write_hf_datasets(tmp_path / "out", samples, classes=classes)
    code = f"""
import datasets, json
loaded = datasets.load_dataset({str(tmp_path / "out")!r}, cache_dir={str(tmp_path / "cache")!r})
assert isinstance(loaded["train"].features["image"], datasets.Image)
names = loaded["train"].features["objects"]["category"].feature.names
rows = {{row["image_id"]: [split, list(row["image"].size), row["objects"]["bbox"],
        [names[i] for i in row["objects"]["category"]]] for split in loaded for row in loaded[split]}}
print(json.dumps([names, rows]))
"""
    names, rows = peer(code, "datasets", "PIL")
    assert names == classes
    assert set(rows) == {sample.id for sample in samples}
    for sample in samples:
        split, size, boxes, labels = rows[sample.id]
        assert split == {"val": "validation"}.get(sample.split, sample.split)
        assert tuple(size[::-1]) == sample.result.size
        assert labels == list(sample.result.instances.labels)
        found = np.array(boxes).reshape(-1, 4)
        found[:, 2:] += found[:, :2]
        np.testing.assert_array_equal(found.astype(np.float32), sample.result.instances.boxes)


def test_datasets_reads_the_table_of_tags(tmp_path):
    tags = Tags(("dog", "cat"), np.array([0.75, 0.5], np.float32))
    write_tags_parquet(tmp_path / "out", [sample_of(None, (), size=(3, 5), tags=tags)], classes=["ant", "cat", "dog"])
    files = str(tmp_path / "out" / "tags.parquet")
    code = f"""
import datasets, json
table = datasets.load_dataset("parquet", data_files={files!r}, cache_dir={str(tmp_path / "cache")!r})["train"]
print(json.dumps(table[0]))
"""
    row = peer(code, "datasets")
    assert (row["labels"], row["scores"]) == ([0, 1, 1], [0, 0.5, 0.75])


def test_webdataset_reads_the_shards(tmp_path):
    samples = [sample_of(None, ["dog"], size=(16, 20), seed=seed) for seed in range(7)]
    write_webdataset(tmp_path / "out", samples, classes=["cat", "dog"], max_shard_bytes=8000)
    code = f"""
import glob, json, webdataset
shards = sorted(glob.glob({str(tmp_path / "out" / "train-*.tar")!r}))
rows = webdataset.WebDataset(shards, shardshuffle=False)
print(json.dumps([[row["json"]["id"], row["png"].size, row["json"]["category"]] for row in rows.decode("pil")]))
"""
    assert peer(code, "webdataset", "PIL") == [[sample.id, [20, 16], [1]] for sample in samples]
