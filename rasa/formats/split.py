"""Which image goes to train, val or test: by its id and a seed, so that it never depends on the order of the images."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from rasa.errors import InputError
from rasa.formats.samples import SPLITS, Split


def split_of(image_id: str, *, val: float = 0.1, test: float = 0.1, seed: int = 0) -> Split:
    """The part of one image, whatever other images there are.

    Fractions are kept on average: of n images, ``n * val`` give or take ``sqrt(n * val * (1 - val))``. Images that
    are added later change no part, and a larger ``val`` or ``test`` takes images from train alone.

    Args:
        image_id: Such as the sha256 of its bytes.
        val: Share of the images, in [0, 1].
        test: Share of the images, in [0, 1].
        seed: Another seed gives another split.

    Raises:
        InputError: If the shares are negative or more than 1 together.

    Example:
        >>> split_of("3f2a", val=0.0, test=0.0)
        'train'
    """
    _check_shares(val, test)
    place = _place(image_id, seed)
    if place < test:
        return "test"
    # From the other end, so that changing one share leaves the other part as it is.
    return "val" if place >= 1 - val else "train"


def stratified_splits(
    images: Iterable[tuple[str, Collection[str]]], *, val: float = 0.1, test: float = 0.1, seed: int = 0
) -> dict[str, Split]:
    """Parts in which every tag has its share, as far as images with several tags allow.

    The rarest tag is shared out first, each image to the part that lacks most of that tag. The same images give the
    same parts in any order; unlike :func:`split_of`, images that are added may move others.

    Args:
        images: Id and tags of each; an id that comes again has the tags of both.
        val: Share of the images, in [0, 1].
        test: Share of the images, in [0, 1].
        seed: Another seed gives another split.

    Returns:
        The part of each id. All ids lie in memory.

    Raises:
        InputError: If the shares are negative or more than 1 together.

    Source:
        Sechidis et al., "On the Stratification of Multi-Label Data", ECML PKDD 2011, algorithm 1.
    """
    _check_shares(val, test)
    shares = {"train": 1 - val - test, "val": val, "test": test}
    tags_of: dict[str, set[str]] = {}
    for image_id, tags in images:
        tags_of.setdefault(image_id, set()).update(tags)
    order = sorted(tags_of, key=lambda image_id: (_place(image_id, seed), image_id))
    return _Shares(tags_of, order, shares).share_out()


class _Shares:
    """How many images, and images of each tag, every part still lacks."""

    def __init__(self, tags_of: Mapping[str, set[str]], order: list[str], shares: Mapping[str, float]) -> None:
        self._tags_of, self._order = tags_of, order
        self._parts: list[Split] = [part for part in SPLITS if shares[part] > 0]
        self._left = Counter(tag for tags in tags_of.values() for tag in tags)
        self._lack_of = {tag: {part: shares[part] * count for part in self._parts} for tag, count in self._left.items()}
        self._lack = {part: shares[part] * len(order) for part in self._parts}
        self._chosen: dict[str, Split] = {}

    def share_out(self) -> dict[str, Split]:
        images_of: dict[str, list[str]] = {tag: [] for tag in self._left}
        for image_id in self._order:
            for tag in self._tags_of[image_id]:
                images_of[tag].append(image_id)
        rarest = [(count, tag) for tag, count in self._left.items()]
        heapq.heapify(rarest)
        while rarest:
            count, tag = heapq.heappop(rarest)
            # Where images of it went with other tags since, it stands in the heap again.
            if count == self._left[tag]:
                for other in self._choose_all(images_of[tag], self._lack_of[tag]):
                    heapq.heappush(rarest, (self._left[other], other))
        self._choose_all(self._order, self._lack)
        return {image_id: self._chosen[image_id] for image_id in self._tags_of}

    def _choose_all(self, images: list[str], lack: Mapping[Split, float]) -> set[str]:
        """Choose for those images that have no part yet; the tags of them that are left on others."""
        changed: set[str] = set()
        for image_id in images:
            if image_id not in self._chosen:
                self._choose(image_id, lack)
                changed |= self._tags_of[image_id]
        return {tag for tag in changed if self._left[tag]}

    def _choose(self, image_id: str, lack: Mapping[Split, float]) -> None:
        # Rounded, because sums of shares that are equal on paper differ in the last bit.
        part = max(self._parts, key=lambda one: (round(lack[one], 6), round(self._lack[one], 6)))
        self._chosen[image_id] = part
        self._lack[part] -= 1
        for tag in self._tags_of[image_id]:
            self._lack_of[tag][part] -= 1
            self._left[tag] -= 1


def _place(image_id: str, seed: int) -> float:
    """A number in [0, 1) that is the same everywhere, unlike ``hash``."""
    digest = hashlib.sha256(f"{seed}:{image_id}".encode("utf-8", "surrogatepass")).digest()
    # 53 bits, all that a float holds.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _check_shares(val: float, test: float) -> None:
    # Written so that NaN fails too.
    if not (val >= 0 and test >= 0 and val + test <= 1 + 1e-9):
        raise InputError(f"val and test must be shares of at least 0, at most 1 together, got {val} and {test}")
