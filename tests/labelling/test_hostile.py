"""A folder of bad inputs: the run ends, the good images are labelled rightly, every bad one has a row that says why."""

import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from PIL.PngImagePlugin import PngInfo

import rasa
from rasa.io.images import printable
from rasa.testing import sample_image

PICTURE = PIL.Image.fromarray(sample_image(height=48, width=64).pixels)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noted_png(number):
    """The picture with a note, so that no two files are the same."""
    note = PngInfo()
    note.add_text("number", str(number))
    return encoded(PICTURE, "PNG", pnginfo=note)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *, bits=8, color=2, data=b""):
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def bad_files():
    """Name to bytes of files that hold no image, or not all of one."""
    whole = {
        "jpg": encoded(PICTURE, "JPEG", quality=90),
        "png": encoded(PICTURE, "PNG"),
        "webp": encoded(PICTURE, "WEBP", lossless=True),
        "tif": encoded(PICTURE, "TIFF"),
        "bmp": encoded(PICTURE, "BMP"),
        "gif": encoded(PICTURE.convert("P"), "GIF"),
    }
    files = {}
    for suffix, places in {"jpg": 10, "png": 10, "webp": 6, "tif": 6, "bmp": 6, "gif": 4}.items():
        for place in range(places):
            # From a byte or two to nine tenths.
            length = 1 + int(len(whole[suffix]) * 0.9 * place / (places - 1))
            files[f"cut-{place}.{suffix}"] = whole[suffix][:length]
    flipped = bytearray(whole["png"])
    flipped[len(flipped) // 2] ^= 255
    depth = PIL.Image.fromarray(np.linspace(-1, 9, 64, dtype=np.float32).reshape(8, 8))
    return files | {
        "empty.jpg": b"",
        "zeros.jpg": bytes(5000),
        "noise.jpg": np.random.default_rng(0).bytes(5000),
        "text.jpg": b"this is no picture\n" * 20,
        "page.jpg": b"<!DOCTYPE html><html><body>404 not found</body></html>",
        "page.png": b"\n <html><head></head></html>",
        "drawing.png": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "paper.jpg": b"%PDF-1.7\n" + bytes(100),
        "archive.jpg": b"PK\3\4" + bytes(100),
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        "phone.jpg": b"\0\0\0\x18ftypheic" + bytes(100),
        "bomb.png": png(30_000, 30_000, bits=1, color=0, data=bytes(30_000 * 3751)),
        "claims.png": png(2_000_000, 2_000_000),
        "none.png": png(0, 0),
        "flat.png": png(5, 0),
        "no-data.png": png(64, 48),
        "flipped.png": bytes(flipped),
        "only-head.jpg": whole["jpg"][:2] + b"\xff\xd9",
        "depth.tif": encoded(depth, "TIFF"),
        "line\nend.jpg": b"a name with a line end",
    }


def good_files():
    """Name to bytes, and the upright pixels that a run must see; None where the file is lossy."""
    pixels = np.asarray(PICTURE)
    files = {}
    for orientation in range(1, 9):
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        stored = {
            1: pixels,
            2: pixels[:, ::-1],
            3: pixels[::-1, ::-1],
            4: pixels[::-1],
            5: pixels.transpose(1, 0, 2),
            6: np.rot90(pixels, 1),
            7: np.rot90(pixels, 2).transpose(1, 0, 2),
            8: np.rot90(pixels, -1),
        }[orientation]
        turned = PIL.Image.fromarray(np.ascontiguousarray(stored))
        comment = f"number {orientation}"  # so that no two files are the same
        files[f"turned-{orientation}.webp"] = encoded(turned, "WEBP", lossless=True, exif=exif), pixels
        files[f"turned-{orientation}.jpg"] = encoded(turned, "JPEG", quality=95, exif=exif, comment=comment), None
    palette = PICTURE.quantize(16)
    palette.info["transparency"] = 0
    on_paper = palette.convert("RGBA")
    paper = PIL.Image.new("RGB", on_paper.size, "white")
    paper.paste(on_paper, mask=on_paper)
    grey = np.asarray(PICTURE.convert("L"))
    tall = np.broadcast_to(np.arange(20_000, dtype=np.uint32).astype(np.uint8)[:, None, None], (20_000, 1, 3))
    frames = [PICTURE, PICTURE.transpose(PIL.Image.Transpose.ROTATE_180)]
    return files | {
        "dot.png": (encoded(PIL.Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), np.array([[[9, 8, 7]]], np.uint8)),
        "tall.png": (encoded(PIL.Image.fromarray(np.ascontiguousarray(tall)), "PNG"), tall),
        "wide.png": (encoded(PIL.Image.fromarray(tall.transpose(1, 0, 2).copy()), "PNG"), tall.transpose(1, 0, 2)),
        "print.jpg": (encoded(PICTURE.convert("CMYK"), "JPEG"), None),
        "deep.png": (
            encoded(PIL.Image.fromarray(grey.astype(np.uint16) * 257), "PNG"), np.repeat(grey[..., None], 3, axis=2)
        ),
        "palette.png": (encoded(palette, "PNG", transparency=0), np.asarray(paper)),
        "moving.webp": (encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True), pixels),
        "moving.gif": (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), None),
        "a png called.jpg": (noted_png(1), pixels),
        "UPPER.JPG": (encoded(PICTURE, "JPEG", progressive=True), None),
    }  # fmt: skip


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The folder, and the names of its bad and good files as rasa prints them."""
    folder = tmp_path_factory.mktemp("hostile") / "photos"
    folder.mkdir()
    bad, good = bad_files(), good_files()
    for name, data in (bad | {name: data for name, (data, _) in good.items()}).items():
        (folder / name).write_bytes(data)
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "broken-link.jpg").symlink_to("nowhere.jpg")
    (folder / "round").symlink_to(".")  # a folder that contains itself
    (folder / "a-folder.jpg").mkdir()
    (folder / "a-folder.jpg" / "inside.png").write_bytes(noted_png(2))
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket is at most 107 bytes long
        server.bind("socket.jpg")
        os.chdir(here)
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).write_bytes(noted_png(3))
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9-bad.png")).write_bytes(b"not \xe9 picture")
    bad_names = {*bad, "loop.jpg", "broken-link.jpg", "pipe.jpg", "socket.jpg", os.fsdecode(b"caf\xe9-bad.png")}
    if os.geteuid():
        (folder / "locked.jpg").write_bytes(encoded(PICTURE, "JPEG", quality=50))
        (folder / "locked.jpg").chmod(0)
        bad_names.add("locked.jpg")
    good_pixels = {name: pixels for name, (_, pixels) in good.items()}
    good_pixels |= dict.fromkeys(("a-folder.jpg/inside.png", os.fsdecode(b"caf\xe9.png")), np.asarray(PICTURE))
    as_printed = {printable(str(folder / name)): pixels for name, pixels in good_pixels.items()}
    return folder, {printable(str(folder / name)) for name in bad_names}, as_printed


@pytest.fixture(scope="module")
def labelled(hostile, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        out = tmp_path_factory.mktemp("labelled") / "out"
        dataset = rasa.label(hostile[0], out, pipeline="fakes:fast", workers=2, shard_size=16)
        return dataset, {image.path: image for image in dataset.rows()}


def test_every_bad_input_has_a_row_with_the_reason(hostile, labelled):
    _, bad, good = hostile
    dataset, rows = labelled
    assert len(bad) >= 60
    failed = {path for path, image in rows.items() if not image.ok}
    assert failed == bad
    for path in bad:
        row = rows[path].row
        assert row.error_kind == "ImageError", row
        assert row.error_stage in {"read", "decode"}
        assert len(row.error_message) > 20
        assert (row.tags, row.instances) in (([], []), ((), ()))
    assert len(rows) == len(bad) + len(good)
    assert dataset.counts.duplicates == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cut-5.jpg", "broken or cut off"),
        ("empty.jpg", "empty"),
        ("zeros.jpg", "begins with zeros"),
        ("text.jpg", "looks like text"),
        ("page.jpg", "an HTML page, perhaps of a failed download"),
        ("pointer.jpg", "a Git LFS pointer"),
        ("phone.jpg", "HEIC"),
        ("bomb.png", "30000 x 30000 = 900.0 megapixels, more than the limit"),
        ("claims.png", "megapixels, more than the limit"),
        ("none.png", "broken or cut off"),
        ("depth.tif", "holds F values"),
        ("loop.jpg", "cannot be opened"),
        ("broken-link.jpg", "broken link"),
        ("pipe.jpg", "no regular file"),
    ],
)
def test_the_reason_names_what_is_wrong(hostile, labelled, name, reason):
    assert reason in labelled[1][printable(str(hostile[0] / name))].row.error_message


def test_the_good_images_are_labelled_rightly(hostile, labelled, fakes):
    pipeline = fakes.fast()
    checked = 0
    for path, pixels in hostile[2].items():
        image = labelled[1][path]
        assert image.ok, image.row
        if pixels is None:
            assert (image.row.height, image.row.width) == (48, 64)
        else:
            expected = pipeline(np.ascontiguousarray(pixels))
            assert image.result.size == expected.size
            assert image.result.tags.names == expected.tags.names
            assert image.result.tags.scores.tolist() == expected.tags.scores.tolist(), path
            checked += 1
    assert checked >= 15


def test_turned_jpegs_answer_like_the_upright_one(hostile, labelled):
    rows = [labelled[1][str(hostile[0] / f"turned-{i}.jpg")].result for i in range(1, 9)]
    for row in rows[1:]:
        assert row.tags.names == rows[0].tags.names
        np.testing.assert_allclose(row.tags.scores, rows[0].tags.scores, atol=0.01)  # JPEG blocks lie elsewhere


def test_the_command_exits_with_0_and_a_summary_or_with_3_if_strict(hostile, labelled, start_label):
    arguments = [hostile[0], "--out", labelled[0].folder, "--pipeline", "fakes:fast", "--shard-size", "16"]
    process = start_label(*arguments)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    assert f"{len(hostile[1])} failed ({len(hostile[1])} ImageError)" in errors
    assert "more, whose labels say why under error_message" in errors
    strict = start_label(*arguments, "--strict")
    _, errors = strict.communicate(timeout=60)
    assert strict.returncode == 3
    assert "images have no labels; their rows say why" in errors
    assert "Traceback" not in errors


def test_files_that_go_or_change_during_the_run_have_rows(photos, tmp_path):
    folder = photos(6)

    def meddle(progress):
        if progress.state == "loading":  # after the plan, before the first image
            (folder / "0003.png").unlink()
            (folder / "0004.png").write_bytes((folder / "0005.png").read_bytes())

    dataset = rasa.label(folder, tmp_path / "out", pipeline="fakes:fast", watch=meddle)
    failed = {image.path[-8:]: image.row.error_message for image in dataset.rows() if not image.ok}
    assert set(failed) == {"0003.png", "0004.png"}
    assert "was deleted" in failed["0003.png"]
    assert "has changed since it was planned" in failed["0004.png"]
