"""Folders of datasets: whole or not there, images upright, and names that stay inside."""

import io
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from rasa import Result, to_image
from rasa.errors import FormatError, ImageError, InputError, OutputError
from rasa.formats._folder import image_reader, inside, new_folder, plain_name, read_bounded, save_image
from rasa.formats.samples import Sample, WriteReport
from tests.formats.samples import image_bytes

FORMATS = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"]


def turned(kind, orientation, mode="RGB"):
    """An image file whose EXIF data turns it."""
    noise = PIL.Image.fromarray(np.random.default_rng(1).integers(0, 255, (4, 6, 3), np.uint8))
    exif, file = PIL.Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    noise.resize((48, 32)).convert(mode).save(file, format=kind, exif=exif)
    return file.getvalue()


def sample(data, name="a.img"):
    return Sample("", name, Result(name, (1, 1)), "train", lambda: data)


def saved(folder, data):
    report = WriteReport()
    save_image(folder, sample(data), report=report)
    return (folder / "images" / "a.img").read_bytes(), report.lost


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_is_copied_to_the_byte(tmp_path, kind):
    for orientation in (0, 1, 9):
        (tmp_path / str(orientation)).mkdir()
        assert saved(tmp_path / str(orientation), turned(kind, orientation)) == (turned(kind, orientation), {})


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_that_is_turned_is_written_upright(tmp_path, kind, orientation):
    given = turned(kind, orientation)
    data, lost = saved(tmp_path, given)
    expected = to_image(given).pixels
    with PIL.Image.open(io.BytesIO(data)) as image:
        # Pillow turns nothing by itself, as most readers of datasets.
        pixels = np.asarray(image.convert("RGB")).astype(int)
        assert image.format == kind
    assert pixels.shape == expected.shape
    np.testing.assert_array_equal(to_image(data).pixels, pixels)
    lossy = kind in {"JPEG", "AVIF"}
    assert np.abs(pixels - expected).mean() < (3 if lossy else 1e-9)
    assert sum(lost.values()) == lossy


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA"])
def test_other_modes_are_turned_without_loss(tmp_path, mode):
    given = turned("PNG", 6, mode)
    data, lost = saved(tmp_path, given)
    np.testing.assert_array_equal(to_image(data).pixels, to_image(given).pixels)
    assert not lost


def test_what_rasa_cannot_read_is_copied(tmp_path):
    assert saved(tmp_path, b"no image") == (b"no image", {})


def test_a_folder_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "d"
    with new_folder(target) as part:
        (part / "x").write_text("1")
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["d"]
    assert (target / "x").read_text() == "1"


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "d").mkdir()
    with new_folder(tmp_path / "d") as part:
        (part / "x").touch()
    assert (tmp_path / "d" / "x").exists()


def fill(folder, error=None, *, meanwhile=None):
    """Write one file, then fail or let somebody else write."""
    with new_folder(folder) as part:
        (part / "x").touch()
        if error is not None:
            raise error
        if meanwhile is not None:
            meanwhile.parent.mkdir()
            meanwhile.touch()


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(LookupError, match="stop"):
        fill(tmp_path / "d", LookupError("stop"))
    with pytest.raises(OutputError, match=r"cannot write .*d: .*No space left.*; choose"):
        fill(tmp_path / "d", OSError(28, "No space left on device"))
    with pytest.raises(ImageError, match="broken"):
        fill(tmp_path / "d", ImageError("broken"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_fills_meanwhile_is_left_alone(tmp_path):
    with pytest.raises(OutputError, match="is not empty"):
        fill(tmp_path / "d", meanwhile=tmp_path / "d" / "theirs")
    assert [path.name for path in tmp_path.rglob("*")] == ["d", "theirs"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "d").touch()
    with pytest.raises(OutputError, match="d is a file; choose another folder"), new_folder(tmp_path / "d"):
        pass
    with pytest.raises(OutputError, match="cannot write"), new_folder(tmp_path / "d" / "e"):
        pass


def test_what_a_killed_writer_left_is_removed(tmp_path):
    code = f"""
import os, pathlib
from rasa.formats._folder import new_folder
with new_folder(pathlib.Path({str(tmp_path / "d[1]")!r})) as part:
    (part / "x").touch()
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (stale,) = tmp_path.iterdir()
    living = tmp_path / f".d[1].{os.getppid()}.part"
    living.mkdir()
    with new_folder(tmp_path / "d[1]"):
        assert not stale.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([living.name, "d[1]"])


def test_two_images_of_one_name(tmp_path):
    save_image(tmp_path, sample(b"1"), report=WriteReport())
    with pytest.raises(InputError, match=r"two images are called 'a\.img'"):
        save_image(tmp_path, sample(b"2"), report=WriteReport())
    save_image(tmp_path, sample(b"2"), report=WriteReport(), under="images/val")
    assert (tmp_path / "images" / "val" / "a.img").read_bytes() == b"2"


def test_no_image_is_counted(tmp_path):
    report = WriteReport()
    save_image(tmp_path, replace(sample(b""), read_bytes=None), report=report)
    assert report.lost == {"image files that were not given": 1}


@pytest.mark.parametrize("name", ["", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "C:/x", "\\x", "a\0b", 5, None])
def test_names_that_lead_out(tmp_path, name):
    with pytest.raises(FormatError, match=r"labels\.json: .* is no path inside"):
        inside(tmp_path, name, where="labels.json")


def test_names_inside(tmp_path):
    assert inside(tmp_path, "a\\b.jpg", where="x") == tmp_path / "a" / "b.jpg"
    assert inside(tmp_path, "..a", where="x") == tmp_path / "..a"
    assert plain_name("a\\b/c.jpg") == "a__b__c.jpg"


def test_links_that_lead_out(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link").symlink_to(tmp_path)
    with pytest.raises(FormatError, match="is no path inside"):
        inside(tmp_path / "d", "link/secret", where="x")


def test_reading_is_bounded(tmp_path):
    path = tmp_path / "x"
    assert image_reader(path) is None
    path.write_bytes(image_bytes(3, 4))
    assert image_reader(path)() == image_bytes(3, 4)
    with pytest.raises(ImageError, match="has more than 5 bytes"):
        read_bounded(path, limit=5)
    with pytest.raises(ImageError, match="cannot read"):
        read_bounded(tmp_path / "none")
