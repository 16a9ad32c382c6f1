"""Images from wherever they come, converted once at the border.

Every source ends as a :class:`rasa.types.Image`: RGB, upright, uint8. Transparent
pixels are laid on white paper; 16 bits a channel become 8 by scaling; an embedded
colour profile (ICC) is ignored, as the models ignored it in training; of an
animation or a file of many pages, the first picture counts.
"""

from __future__ import annotations

import io
import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from rasa.arrays import ByteArray
from rasa.errors import ImageError, InputError
from rasa.io._decode import (
    MAX_FILE_BYTES,
    MAX_PIXELS,
    check_pixels,
    decode_image,
    file_format,
    load_pillow,
    upright_size,
)
from rasa.io.find import IMAGE_SUFFIXES, find_images
from rasa.types import Image

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "ImageSource", "file_format", "find_images", "image_size", "to_image"]


class TensorLike(Protocol):
    """What is asked of a torch tensor, so that torch need not be imported."""

    dtype: Any

    def detach(self) -> TensorLike:
        """The values without their history."""
        ...

    def cpu(self) -> TensorLike:
        """The values in main memory."""
        ...

    def numpy(self) -> NDArray[Any]:
        """The values as an array."""
        ...


ImageSource = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | PIL.Image.Image
    | NDArray[Any]
    | TensorLike
    | Image
)

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/+", re.IGNORECASE)
_ACCEPTED = "a path, bytes, a binary file, a PIL image, a uint8 array or a uint8 tensor"


def to_image(source: ImageSource, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Image:
    """Read ``source`` as an RGB image that stands upright.

    Args:
        source: A path to a regular file; the bytes of a file, or a binary file, which is read
            from where it stands to its end; a PIL image; a uint8 array of shape ``(H, W)``,
            ``(H, W, 1)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA; a uint8 torch tensor of shape
            ``(3, H, W)`` or ``(H, W, 3)``; or an ``Image``, which is returned as it is. An array of
            contiguous RGB is not copied. OpenCV's arrays are BGR, which nobody can tell: pass
            ``array[..., ::-1]``.
        name: What errors and results call the image; the path, or ``"image"`` unless given.
        max_pixels: Largest height times width, checked before decoding. Files hold at most 2 GiB.

    Raises:
        ImageError: If there is no such file, it is no image of a format that is read (AVIF, BMP,
            GIF, JPEG, PNG, TIFF, WebP), it is broken or cut off, or it has more than ``max_pixels``.
        InputError: If ``source`` is of another type, dtype or shape; values are never rescaled by guess.

    Example:
        >>> import numpy as np
        >>> to_image(np.zeros((2, 3), np.uint8)).pixels.shape
        (2, 3, 3)
    """
    if isinstance(max_pixels, bool) or not isinstance(max_pixels, int) or max_pixels < 1:
        raise InputError(f"max_pixels must be a whole number of at least 1, got {max_pixels!r}")
    label = printable(name if name is not None else _name_of(source))
    if isinstance(source, Image):
        image = source if name is None else replace(source, name=label)
    else:
        image = Image(np.ascontiguousarray(_pixels(source, label, max_pixels)), name=label)
    check_pixels(image.size[::-1], name=image.name, max_pixels=max_pixels)
    return image


def image_size(file: IO[bytes], *, name: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """``(height, width)`` in pixels of what :func:`to_image` will give, from the header alone.

    Args:
        file: A seekable binary file, at its start.
        name: What errors call the image.
        max_pixels: As of :func:`to_image`.

    Raises:
        ImageError: If :func:`to_image` would refuse the format, the header or the number of pixels.
    """
    height, width = upright_size(file, name=name)
    check_pixels((width, height), name=name, max_pixels=max_pixels)
    return height, width


def printable(name: str) -> str:
    """``name`` with what UTF-8 cannot hold as escapes, so that it can be logged and saved."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _name_of(source: Any) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    # PIL images know the file that they were opened from, and files their name.
    known = getattr(source, "filename", "") if isinstance(source, PIL.Image.Image) else getattr(source, "name", "")
    return os.fsdecode(known) if isinstance(known, str | bytes) and known else "image"


def _pixels(source: Any, name: str, max_pixels: int) -> NDArray[Any]:
    if isinstance(source, str | os.PathLike):
        return _rgb(_read_path(source, name, max_pixels), name)
    if isinstance(source, bytes | bytearray | memoryview):
        return _rgb(decode_image(io.BytesIO(source), name=name, max_pixels=max_pixels), name)
    if isinstance(source, PIL.Image.Image):
        return _rgb(load_pillow(source, name=name, max_pixels=max_pixels), name)
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if all(hasattr(source, method) for method in ("detach", "cpu", "numpy")):
        return _from_tensor(source, name)
    if hasattr(source, "read"):
        return _rgb(decode_image(_read_stream(source, name), name=name, max_pixels=max_pixels), name)
    raise InputError(f"cannot read {type(source).__name__} {name!r} as an image; pass {_ACCEPTED}")


def _read_path(source: str | os.PathLike[str], name: str, max_pixels: int) -> PIL.Image.Image:
    try:
        status = Path(source).stat()
        _check_regular(status, name)
        with Path(source).open("rb") as file:
            return decode_image(file, name=name, max_pixels=max_pixels)
    except FileNotFoundError as error:
        if _URL.match(name):
            raise ImageError(
                f"{name!r} is an address; rasa fetches nothing, so download it and pass the file"
            ) from error
        raise ImageError(
            f"image {name!r} does not exist; check the path (the working folder is {os.fspath(Path.cwd())!r})"
        ) from error
    except PermissionError as error:
        raise ImageError(f"image {name!r} may not be read by this user; change its permissions") from error
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"image {name!r} cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def _check_regular(status: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{name!r} is a folder; pass its files, which rasa.find_images lists")
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe or a device may wait for ever.
        raise ImageError(f"{name!r} is a pipe or device; pass a regular file, or the bytes")
    if status.st_size > MAX_FILE_BYTES:
        raise ImageError(f"image {name!r} has {status.st_size} bytes, the limit is {MAX_FILE_BYTES}; scale it down")


def _read_stream(file: Any, name: str) -> io.BytesIO:
    try:
        data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ImageError(f"image {name!r} cannot be read: {error}; pass an open binary file") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InputError(f"image {name!r}: read() gave {type(data).__name__}; open the file with mode 'rb'")
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(f"image {name!r} has more than {MAX_FILE_BYTES} bytes; scale it down")
    return io.BytesIO(data)


def _rgb(image: PIL.Image.Image, name: str) -> ByteArray:
    if image.mode in ("F", "LAB"):
        raise ImageError(f"image {name!r} holds {image.mode} values; convert it to 8-bit RGB yourself, by its range")
    if image.mode.startswith("I"):
        return _grey_from_16_bits(image, name)
    if image.has_transparency_data:
        # La has no way to RGBA of its own.
        see_through = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        paper = PIL.Image.new("RGB", image.size, "white")
        paper.paste(see_through, mask=see_through)
        return np.asarray(paper)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _grey_from_16_bits(image: PIL.Image.Image, name: str) -> ByteArray:
    wide = np.asarray(image)
    if wide.min() < 0 or wide.max() > 65535:
        raise ImageError(
            f"image {name!r} holds values from {wide.min()} to {wide.max()}; scale them to 0 to 255 yourself"
        )
    wide = wide.astype(np.uint16)
    grey = np.round(np.arange(65536) / 257).astype(np.uint8)[wide]  # 65535 / 257 is 255
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[wide == clear] = 255
    return _stack_grey(grey)


def _stack_grey(grey: ByteArray) -> ByteArray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _from_array(array: NDArray[Any], name: str) -> ByteArray:
    if array.dtype != np.uint8:
        raise InputError(f"image {name!r} must be uint8, got {array.dtype}; {_remedy(str(array.dtype))}")
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(
            f"image {name!r} must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}"
            + _channels_hint(array.shape, "array.transpose(1, 2, 0)")
        )
    if array.ndim == 3 and array.shape[2] == 3:
        return array
    if array.ndim == 3 and array.shape[2] == 4:
        return _rgb(PIL.Image.fromarray(np.ascontiguousarray(array), "RGBA"), name)
    return _stack_grey(array.reshape(array.shape[:2]))


def _from_tensor(tensor: TensorLike, name: str) -> ByteArray:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype != "uint8":
        raise InputError(f"image {name!r} must be a uint8 tensor, got {dtype}; {_remedy(dtype, tensor=True)}")
    array = tensor.detach().cpu().numpy()
    first, last = (array.ndim == 3 and array.shape[axis] == 3 for axis in (0, 2))
    if first and last:
        raise InputError(
            f"image {name!r}: a tensor of shape {array.shape} has its channels first or last; pass an array (H, W, 3)"
        )
    if not (first or last) or array.size == 0:
        raise InputError(
            f"image {name!r} must be a tensor of shape (3, H, W) or (H, W, 3), got {array.shape}"
            + ("; pass one image of the batch, such as tensor[0]" if array.ndim == 4 else "")
        )
    return array.transpose(1, 2, 0) if first else array


def _channels_hint(shape: tuple[int, ...], remedy: str) -> str:
    if len(shape) == 4:
        return "; pass one image of the batch, such as array[0]"
    return f"; channels come last: pass {remedy}" if len(shape) == 3 and shape[0] in (1, 3, 4) else ""


def _remedy(dtype: str, *, tensor: bool = False) -> str:
    to_bytes = ".to(torch.uint8)" if tensor else ".astype(np.uint8)"
    if dtype == "bool":
        return f"if it is a mask, pass (mask * 255){to_bytes}"
    if dtype == "uint16":
        return f"if its range is 0 to 65535, pass (x // 257){to_bytes}"
    if "float" in dtype:
        return f"if its range is 0 to 1, pass (x * 255).round(){to_bytes}"
    return f"if its range is 0 to 255, pass x{to_bytes}"
