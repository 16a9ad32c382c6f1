"""Object storage through fsspec, on its own file systems and on one that is made to fail."""

import csv
import hashlib
import io
import os
from importlib.util import find_spec

import fsspec
import PIL.Image
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import rasa
from rasa.errors import DependencyError, FormatError, ImageError, InputError
from rasa.labelling import objects
from rasa.labelling.locators import Locator, locator_of, place_columns
from rasa.labelling.objects import IN_MANIFESTS
from rasa.labelling.plan import plan_images
from rasa.labelling.reading import read_bytes
from rasa.labelling.sources import find_sources


def png(value=0):
    file = io.BytesIO()
    PIL.Image.new("RGB", (3, 2), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


class Bucket(MemoryFileSystem):
    """A store of its own under the protocol ``oss``, which lists what it is told to and counts what is read."""

    protocol = "oss"
    store, pseudo_dirs = {}, [""]
    denied, vanished, cut, reads = set(), set(), set(), []

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("oss://"))

    def _checked(self, path):
        if path in self.denied:
            raise PermissionError("Forbidden, request 4711")

    def info(self, path, **kwargs):
        info = super().info(path, **kwargs)
        return self._with_etag(info)

    def ls(self, path, detail=True, **kwargs):
        self._checked(self._strip_protocol(path))
        return [self._with_etag(info) if detail else info for info in super().ls(path, detail=detail, **kwargs)]

    def cat_file(self, path, start=None, end=None, **kwargs):
        self._checked(path)
        self.reads.append(path)
        if path in self.vanished:
            raise FileNotFoundError(path)
        return super().cat_file(path, start, end, **kwargs)[: -1 if path in self.cut else None]

    def _with_etag(self, info):
        if info["type"] == "file":
            info["ETag"] = hashlib.md5(self.store[info["name"]].getvalue()).hexdigest()
        return info


@pytest.fixture
def bucket():
    fsspec.register_implementation("oss", Bucket, clobber=True)
    for kept in (Bucket.store, Bucket.denied, Bucket.vanished, Bucket.cut, Bucket.reads):
        kept.clear()
    system = fsspec.filesystem("oss")
    for i, name in enumerate(("b/img10.png", "b/img2.png", "b/A/x.JPG", "b/notes.txt", "b/.hidden.png", "c/y.png")):
        system.pipe_file(f"/{name}", png(i))
    return system


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def paths(source):
    return [found.path for found in find_sources(source)]


# Listing


def test_a_folder_is_listed_in_natural_order(bucket):
    expected = ["oss://b/A/x.JPG", "oss://b/img2.png", "oss://b/img10.png"]
    assert paths("oss://b") == paths("oss://b/") == expected
    assert paths("oss://b/img2.png") == ["oss://b/img2.png"]
    assert [read_bytes(found.locator) for found in find_sources("oss://b")] == [png(2), png(1), png(0)]


def test_a_pattern_gives_images_and_the_folders_it_matches(bucket):
    assert paths("oss://b/img*.png") == ["oss://b/img2.png", "oss://b/img10.png"]
    assert paths("oss://*/A") == ["oss://b/A/x.JPG"]
    assert paths("oss://b/*") == ["oss://b/A/x.JPG", "oss://b/img2.png", "oss://b/img10.png"]


def test_a_name_may_look_like_a_pattern(bucket):
    bucket.pipe_file("/b/a[1].png", png(9))
    assert paths("oss://b/a[1].png") == ["oss://b/a[1].png"]


def test_memory_is_read(memory):
    memory.pipe_file("/m/a/1.png", png(1))
    memory.pipe_file("/m/2.png", png(2))
    assert paths("memory://m") == ["memory://m/2.png", "memory://m/a/1.png"]
    assert [read_bytes(found.locator) for found in find_sources("memory://m")] == [png(2), png(1)]
    assert paths("memory://m/*/*.png") == ["memory://m/a/1.png"]


def test_files_are_the_same_images_through_fsspec(tmp_path, photos):
    folder = photos(3)
    (folder / "sub").mkdir()
    os.link(folder / "0000.png", folder / "sub" / "again.png")
    direct, through = plan_images(tmp_path / "a", folder), plan_images(tmp_path / "b", f"file://{folder}")
    assert [image.id for image in through.images()] == [image.id for image in direct.images()]
    assert next(through.images()).path == f"file://{folder}/0000.png"
    assert through.duplicates().keys() == direct.duplicates().keys() != set()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("oss://b/none.png", "does not exist; check the address"),
        ("oss://b/*.webp", "matches no image"),
        ("nosuchprotocol://b/a.png", "Protocol not known"),
        ("simplecache::oss://b/a.png", "does not exist"),
        ("oss://a.png::file:///b.png", "chain of addresses"),
        ("oss://b/photos.tar", "read from a disk only"),
    ],
)
def test_a_source_that_is_wrong_is_refused(bucket, source, message):
    with pytest.raises(InputError, match=message):
        list(find_sources(source))


@pytest.mark.skipif(find_spec("s3fs") is not None, reason="s3fs is installed")
def test_a_missing_package_is_named(tmp_path):
    with pytest.raises(DependencyError, match="s3fs"):
        list(find_sources("s3://bucket/folder"))
    (tmp_path / "list.csv").write_text("url\ns3://bucket/a.png\n")
    with pytest.raises(DependencyError, match="s3fs"):
        list(find_sources(tmp_path / "list.csv"))


# Failures


def test_what_cannot_be_read_has_a_row_with_the_reason(bucket, tmp_path):
    Bucket.denied |= {"/b/img2.png", "/b/A"}
    Bucket.cut |= {"/b/img10.png"}
    bucket.pipe_file("/b/z.png", png(7))
    bucket.pipe_file("/b/empty.png", b"")
    Bucket.vanished |= {"/b/z.png"}
    images = list(plan_images(tmp_path / "out", "oss://b").images())
    reasons = {image.path: image.error.message for image in images}
    assert reasons == {
        "oss://b/A": "'oss://b/A' may not be read; check the credentials and what they allow",
        "oss://b/empty.png": "'oss://b/empty.png' is empty (0 bytes)",
        "oss://b/img2.png": "'oss://b/img2.png' may not be read; check the credentials and what they allow",
        "oss://b/img10.png": f"'oss://b/img10.png' gives {len(png(0)) - 1} bytes, its listing said {len(png(0))}; "
        "label its source again",
        "oss://b/z.png": "'oss://b/z.png' is not there; it was deleted, or its address is wrong",
    }
    assert {image.error.kind for image in images} == {"ImageError"}


def test_a_large_object_is_refused_before_it_is_read(bucket, monkeypatch):
    monkeypatch.setattr(objects, "MAX_BYTES", 10)
    with pytest.raises(ImageError, match="the limit in object storage is 10"):
        read_bytes(Locator("object", "oss://b/img2.png", size=len(png())))
    assert Bucket.reads == []
    with pytest.raises(ImageError, match="has 11 bytes, the limit in object storage is 10"):
        read_bytes(Locator("object", "oss://b/img2.png"))


def test_a_chain_in_the_name_of_an_object_reads_no_file(bucket, tmp_path):
    (tmp_path / "secret.png").write_bytes(png(99))
    Bucket.store[f"/b/q::file://{tmp_path}/secret.png"] = Bucket.store["/b/img2.png"]
    with pytest.raises(ImageError, match="chain of addresses"):
        read_bytes(Locator("object", f"oss://b/q::file://{tmp_path}/secret.png"))


# Planning again


def test_only_changed_objects_are_read_again(bucket, tmp_path):
    first = plan_images(tmp_path / "out", "oss://b")
    assert (first.count, len(Bucket.reads)) == (3, 3)
    plan_images(tmp_path / "out", "oss://b")
    assert len(Bucket.reads) == 3
    bucket.pipe_file("/b/img2.png", png(200))
    assert len(png(200)) == len(png(1))
    again = plan_images(tmp_path / "out", "oss://b")
    assert Bucket.reads[3:] == ["/b/img2.png"]
    assert hashlib.sha256(png(200)).hexdigest() in {image.id for image in again.images()}
    assert again.count == 3


# Manifests


def test_a_manifest_names_objects(bucket, tmp_path):
    with (tmp_path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path"], ["oss://b/img2.png"], ["oss://b/gone.png"], ["oss://b"]])
    images = list(plan_images(tmp_path / "out", tmp_path / "list.csv").images())
    assert images[0].read() == png(1)
    assert "is not there" in images[1].error.message
    assert "is a folder" in images[2].error.message
    Bucket.reads.clear()
    plan_images(tmp_path / "out", tmp_path / "list.csv")
    assert "/b/img2.png" not in Bucket.reads


@pytest.mark.parametrize(
    "address", ["file://{}/a.png", "local://{}/a.png", "FILE://{}/a.png", "memory://a.png", "sftp://host/a.png",
                "reference://a.png", "zip://a.png::file://{}/a.zip", "filecache::file://{}/a.png"],
)  # fmt: skip
def test_a_manifest_reaches_nothing_that_the_user_did_not_name(tmp_path, address):
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "list.csv").write_text(f"url\n{address.format(tmp_path)}\n")
    (image,) = plan_images(tmp_path / "out", tmp_path / "list.csv").images()
    assert image.error is not None
    assert "may not name" in image.error.message or "does not exist" in image.error.message


def test_a_chain_behind_an_allowed_protocol_is_refused(bucket, tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "list.csv").write_text(f"url\noss://x::file://{tmp_path}/a.png\n")
    (image,) = plan_images(tmp_path / "out", tmp_path / "list.csv").images()
    assert "chain of addresses" in image.error.message
    assert not IN_MANIFESTS & {"file", "local", "memory", "dir", "reference", "zip", "tar", "sftp", "ssh", "webhdfs"}


# Whole


def test_a_locator_of_an_object_survives_its_table():
    locator = Locator("object", "s3://bucket/ä.png", size=7)
    assert locator_of(place_columns(locator)) == locator
    with pytest.raises(FormatError, match="object"):
        Locator("s3", "s3://bucket/a.png")


def test_a_dataset_of_file_addresses(photos, tmp_path, fakes):
    folder = photos(5)
    (folder / "broken.png").write_bytes(b"no image")
    dataset = rasa.label(f"file://{folder}", tmp_path / "out", pipeline="fakes:fast", shard_size=2)
    assert (dataset.counts.ok, dataset.counts.failed, dataset.finished) == (5, 1, True)
    images = [image for image in dataset.rows() if image.path.endswith("0003.png")]
    assert images[0].path == f"file://{folder}/0003.png"
    assert images[0].read_bytes() == (folder / "0003.png").read_bytes()
    assert images[0].result.tags.names == fakes.fast()(folder / "0003.png").tags.names


def test_the_command_takes_addresses(photos, tmp_path, start_label):
    folder = photos(2)
    process = start_label(f"file://{folder}/*.png", "--out", tmp_path / "out", "--pipeline", "fakes:fast")
    assert (process.wait(120), process.stderr.read().count("error")) == (0, 0)
    images = list(rasa.open_dataset(tmp_path / "out").rows())
    assert [image.path for image in images] == [f"file://{folder}/{i:04d}.png" for i in range(2)]
