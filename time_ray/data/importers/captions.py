"""Captions as sources give them: a text, a list of texts, or something odd."""

from typing import Any

from time_ray.limits import CAPTION_LETTERS


def captions_of(value: Any) -> tuple[tuple[str, ...], bool]:
    """The captions in a text or a list of texts, and whether something in it is none; nothing at all is no fault."""
    if value is None:
        return (), False
    given = value if isinstance(value, (list, tuple)) else [value]
    captions = tuple(caption for caption in given if _is_caption(caption))
    return captions, not captions or len(captions) < len(given)


def _is_caption(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > CAPTION_LETTERS or not value.strip():
        return False
    try:
        value.encode()  # half of a surrogate pair, as JSON may hold it, is no text
    except UnicodeEncodeError:
        return False
    return True
