"""What a user points at: folders, patterns, manifests, archives, videos and addresses."""

import io
import json
import os
import socket
import struct
import subprocess
import tarfile
import zipfile

import cv2
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rasa import to_image
from rasa.errors import FormatError, ImageError, InputError
from rasa.labelling import archives
from rasa.labelling.locators import Locator, locator_of, place_columns
from rasa.labelling.reading import digest_of, read_bytes
from rasa.labelling.sources import Frames, find_sources


def png(value=0, size=(3, 2)):
    file = io.BytesIO()
    PIL.Image.new("RGB", size, (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def names(sources, folder, **options):
    return [os.path.relpath(found.path, folder) for found in find_sources(sources, **options)]


def found_in(source, **options):
    return list(find_sources(source, **options))


# Folders


def test_a_folder_is_walked_in_natural_order(tmp_path):
    for name in ("img10.png", "img2.png", "B/x.JPG", "a/y.webp", "notes.txt", ".hidden.png", ".git/z.png", "page.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    assert names(tmp_path, tmp_path) == ["a/y.webp", "B/x.JPG", "img2.png", "img10.png"]


def test_a_loop_of_links_ends_and_linked_folders_count_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.png").write_bytes(png())
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "z").symlink_to(tmp_path / "a")
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "self").symlink_to("self")
    assert names(tmp_path, tmp_path) == ["a/one.png", "self.png"]
    with pytest.raises(ImageError, match=r"self\.png' cannot be opened"):
        read_bytes(Locator("file", str(tmp_path / "self.png")))


def test_folders_deeper_than_python_recurses(tmp_path):
    deep = os.open(tmp_path, os.O_RDONLY)
    for i in range(1050):  # by descriptors, since the whole path is longer than a call may take in the end
        name = "d" if i < 1030 else "d" * 200
        os.mkdir(name, dir_fd=deep)
        below = os.open(name, os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    (tmp_path / "z.png").write_bytes(png())
    try:
        assert names(tmp_path, tmp_path) == ["z.png"]
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # shutil.rmtree recurses


def test_a_folder_called_like_an_image_is_a_folder(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "x.jpg" / "y.png").write_bytes(png())
    assert names(tmp_path, tmp_path) == ["x.jpg/y.png"]
    with pytest.raises(ImageError, match=r"x\.jpg' cannot be opened: Is a directory"):
        read_bytes(Locator("file", str(tmp_path / "x.jpg")))


def test_a_folder_that_may_not_be_read_is_one_bad_place(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    if os.access(tmp_path / "closed", os.R_OK):
        pytest.skip("this user may read everything")
    (tmp_path / "open.png").write_bytes(png())
    closed, fine = found_in(tmp_path)
    assert "cannot be read" in closed.error
    assert fine.error == ""


def test_a_name_that_is_no_utf_8_is_printable_and_can_be_read(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(png())
    (found,) = found_in(tmp_path)
    assert found.path == f"{tmp_path}/caf\\udce9.png"
    assert read_bytes(found.locator) == png()
    assert locator_of(place_columns(found.locator)) == found.locator


def test_pipes_and_empty_files_have_a_reason_and_nothing_waits(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty.png").touch()
    empty, pipe = found_in(tmp_path)
    with pytest.raises(ImageError, match=r"empty\.png' is empty \(0 bytes\)"):
        digest_of(empty.locator)
    with pytest.raises(ImageError, match=r"pipe\.png' is no regular file"):
        digest_of(pipe.locator)


def test_patterns_and_files_by_name(tmp_path):
    for name in ("b.png", "a.png", "list.txt", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    assert names(f"{tmp_path}/*", tmp_path) == ["a.png", "b.png", "sub/c.png"]
    assert names(f"{tmp_path}/**/*.png", tmp_path) == ["a.png", "b.png", "sub/c.png"]
    assert names([tmp_path / "list.txt", tmp_path / "a.png"], tmp_path) == ["list.txt", "a.png"]


@pytest.mark.parametrize(
    ("source", "reason"), [("nowhere", "does not exist; check the path"), ("*.nothing", "the pattern matches nothing")]
)
def test_a_source_that_is_not_there(tmp_path, source, reason):
    with pytest.raises(InputError, match=reason):
        found_in(str(tmp_path / source))
    with pytest.raises(InputError, match="nothing to label"):
        found_in([])


# Manifests


def write_manifest(path, rows):
    if path.suffix == ".csv":
        path.write_text("\ufeffid,path\n" + "".join(f'{i},"{row["path"]}"\n' for i, row in enumerate(rows)), "utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows), "utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_manifests_name_files_relative_to_themselves(tmp_path, suffix):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ä b.png").write_bytes(png(1))
    (tmp_path / "c.dat").write_bytes(png(2))
    rows = [
        {"path": "ä b.png"},
        {"path": str(tmp_path / "c.dat")},
        {"path": "../c.dat"},
        {"path": "gone.png"},
        {"path": ""},
    ]
    found = found_in(write_manifest(tmp_path / "in" / f"list.{suffix}", rows))
    assert [read_bytes(place.locator) for place in found[:3]] == [png(1), png(2), png(2)]
    with pytest.raises(ImageError, match=r"gone\.png' does not exist"):
        read_bytes(found[3].locator)
    assert "row 5 has neither path nor url" in found[4].error


def test_a_manifest_may_name_bytes_that_are_no_utf_8(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(png())
    (tmp_path / "list.csv").write_bytes(b"path\n\xff.png\n")
    (found,) = found_in(tmp_path / "list.csv")
    assert read_bytes(found.locator) == png()


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.csv", b"file\nx.png\n", "needs a column path or url, got file"),
        ("a.csv", b"", "needs a column path or url, got none"),
        ("a.csv", b'path\n"' + b"x" * 200_000 + b'"\n', "no valid CSV: field larger"),
        ("a.jsonl", b'{"path": "a.png"}\n{"path": \n', "line 2: no valid JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1: no valid JSON"),
        ("a.jsonl", b"[1]\n", "line 1: expected an object"),
        ("a.jsonl", b'{"path": 7}\n', "row 1: path and url must be texts, got 7"),
        ("a.jsonl", b" " * (2**20 + 1), "line 1: longer than"),
        ("a.parquet", b"PAR1nothing", "no readable Parquet"),
    ],
)
def test_a_malformed_manifest_is_refused_with_its_place(tmp_path, name, text, reason):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(FormatError, match=reason):
        found_in(tmp_path / name)


# Archives


def make_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


HOSTILE = ["../../etc/x.png", "/etc/passwd.png", "a/../b.png", "c:\\d.png", "a.png", "a.png"]


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_are_read_in_place_and_names_are_no_paths(tmp_path, kind):
    path, members = tmp_path / f"shard.{kind}", [(name, png(i)) for i, name in enumerate(HOSTILE)]
    members += [("a.json", b"{}"), (".hidden.png", png()), ("dir/", b"")]
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members:
                archive.writestr(name, data)
    else:
        make_tar(path, members, "w:gz" if kind == "tar.gz" else "w")
    found = found_in(path)
    assert [place.path.partition("::")[2] for place in found] == HOSTILE
    expected = [png(i) for i in range(len(HOSTILE))]
    assert [read_bytes(place.locator) for place in found] == expected
    assert [read_bytes(place.locator) for place in reversed(found)] == expected[::-1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_tar_may_hold_links_devices_and_names_that_are_no_utf_8(tmp_path):
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name, kind in (("l.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE), ("d.png", tarfile.CHRTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        entry = tarfile.TarInfo("caf\xe9.png")
        entry.size = len(png())
        archive.addfile(entry, io.BytesIO(png()))
    (found,) = found_in(path)
    assert found.path.endswith("caf\\udce9.png")
    assert read_bytes(found.locator) == png()


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("keep", [0, 20, 700])
def test_a_cut_archive_is_a_bad_place_and_not_a_crash(tmp_path, kind, keep):
    path = tmp_path / f"cut.{kind}"
    noise = [(f"{i}.png", os.urandom(600)) for i in range(4)]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in noise:
                archive.writestr(name, data)
    else:
        make_tar(path, noise, "w:gz" if kind == "tar.gz" else "w")
    path.write_bytes(path.read_bytes()[:keep])
    found = found_in(path)
    reasons = [place.error for place in found if place.error]
    for place in found:
        if not place.error:
            with pytest.raises(ImageError, match="damaged or cannot be read"):
                read_bytes(place.locator)
            reasons.append("read")
    assert reasons


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", b"\0" * 30_000_000)
        archive.writestr("good.png", png())
    bomb, good = found_in(path)
    with pytest.raises(ImageError, match=r"unpacks to 30000000 bytes from .* as bombs do"):
        read_bytes(bomb.locator)
    assert read_bytes(good.locator) == png()


def test_members_that_overlap_or_lie_about_their_size_are_refused(tmp_path):
    path = tmp_path / "lie.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png(1))
        archive.writestr("b.png", png(2))
    data = path.read_bytes()
    at = data.rindex(b"PK\1\2")
    # The second entry of the directory points at the bytes of the first, as in Fifield's bomb.
    path.write_bytes(data[: at + 42] + struct.pack("<I", 0) + data[at + 46 :])
    (found,) = found_in(path)
    assert "overlap, as in a bomb" in found.error


def test_a_member_larger_than_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 100)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", b"x" * 101)
    make_tar(tmp_path / "a.tar", [("a.png", b"x" * 101)])
    for found in found_in(f"{tmp_path}/*"):
        with pytest.raises(ImageError, match="has 101 bytes, the limit in archives is 100"):
            read_bytes(found.locator)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_is_replaced_is_read_anew(tmp_path, kind):
    path, read = tmp_path / f"a.{kind}", []
    for value, name in ((1, "a.png"), (2, "a.png"), (3, "b.png")):
        if kind == "zip":
            with zipfile.ZipFile(tmp_path / "new", "w") as archive:
                archive.writestr(name, png(value))
        else:
            make_tar(tmp_path / "new", [(name, png(value))], "w:gz")
        (tmp_path / "new").replace(path)
        if value < 3:
            (found,) = found_in(path)
            read.append(read_bytes(found.locator))
    assert read == [png(1), png(2)]
    if kind == "zip":
        with pytest.raises(ImageError, match=r"has changed: no 'a\.png' at its place"):
            read_bytes(found.locator)


def test_an_archive_or_video_that_is_gone_is_an_error():
    for kind in ("zip", "tar", "video"):
        for suffix in ("", ".gz"):
            with pytest.raises(ImageError, match="nowhere"):
                read_bytes(Locator(kind, f"/nowhere{suffix}", "a.png", 0, 10))


# Videos


@pytest.fixture
def clip(tmp_path):
    """A video of 30 grey frames at 10 a second; frame i has the value 8 i."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for i in range(30):
        writer.write(np.full((48, 64, 3), 8 * i, np.uint8))
    writer.release()
    return path


def frames_of(found):
    return [place.locator.position for place in found]


def test_frames_of_a_video_by_number_and_by_time(clip):
    assert frames_of(found_in(clip)) == [0, 10, 20]
    assert frames_of(found_in(clip, frames=Frames(every=7))) == [0, 7, 14, 21, 28]
    assert frames_of(found_in(clip, frames=Frames(seconds=0.5))) == [0, 5, 10, 15, 20, 25]
    assert found_in(clip)[1].path == f"{clip}::frame 10"


def test_frames_are_the_right_ones_in_any_order(clip):
    found = found_in(clip, frames=Frames(every=3))
    values = {}
    for place in [*found, *reversed(found), found[4]]:
        data = read_bytes(place.locator)
        assert values.setdefault(place.locator.position, data) == data
        assert abs(int(to_image(data).pixels.mean()) - 8 * place.locator.position) <= 2


def test_a_cut_video_gives_the_frames_that_are_there(clip):
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    found = found_in(clip)
    assert found
    last = Locator("video", str(clip), "", 29)
    with pytest.raises(ImageError, match=r"has no frame 29|cannot be opened"):
        read_bytes(last)


def test_a_video_that_is_none_is_a_bad_place(tmp_path):
    (tmp_path / "x.mp4").write_text("no video")
    (found,) = found_in(tmp_path / "x.mp4")
    assert "cannot be opened; it is damaged" in found.error


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}/a.ts\n#EXT-X-ENDLIST\n"),
        ("mkv", "ffconcat version 1.0\nfile '{address}/a.mp4'\n"),
        ("mov", '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><BaseURL>{address}/a.mp4</BaseURL></MPD>'),
    ],
)
def test_a_video_that_is_a_list_of_addresses_asks_nobody(tmp_path, suffix, text):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        (tmp_path / f"x.{suffix}").write_text(text.format(address=address))
        (found,) = found_in(tmp_path / f"x.{suffix}")
        assert "cannot be opened" in found.error
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize(
    "options", [{"every": 0}, {"seconds": -1.0}, {"seconds": float("nan")}, {"every": 1, "seconds": 1.0}]
)
def test_a_wrong_step_is_refused(options):
    with pytest.raises(InputError, match=r"every|seconds"):
        Frames(**options)
