"""One training image with what is known of it: what manifests hold, the engine passes on, and training reads."""

from __future__ import annotations

from dataclasses import dataclass

from rasa.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An image, its captions and its tags. Ids are positions in the vocabulary that the record was written for.

    Attributes:
        image_path: Where the image is, relative to the images' folder (``image_path`` in the published files).
        captions: C captions (``caption``); none is a valid record that teaches tags alone.
        parsed_ids: C rows of tag ids, what each caption says (``parse_label_id``).
        tag_ids: Tag ids of the image, distinct (``union_label_id``); None where nothing but captions is known.

    Raises:
        InputError: If ``parsed_ids`` has not one row per caption.
    """

    image_path: str
    captions: tuple[str, ...] = ()
    parsed_ids: tuple[tuple[int, ...], ...] = ()
    tag_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.parsed_ids) != len(self.captions):
            raise InputError(
                f"parsed_ids of {self.image_path} must have one row per caption, got {len(self.parsed_ids)} rows for "
                f"{len(self.captions)} captions"
            )

    @property
    def known_ids(self) -> tuple[int, ...]:
        """``tag_ids``, or else all that the captions say; distinct, in order of appearance."""
        if self.tag_ids is not None:
            return self.tag_ids
        return tuple(dict.fromkeys(tag for row in self.parsed_ids for tag in row))
