"""What all importers agree on."""

from time_ray.learn.images import decode

PROMPT = "a photo of a {}."  # the class prompt, and the caption where there is none
EVERY = 5


def is_held_out(position: int) -> bool:
    """Whether the sample at that position of its class is for testing, where a source has no test split: 20 %."""
    return position % EVERY == 1


def image_fault(data: bytes) -> str | None:
    """Why the bytes are not a whole image, or None if they are."""
    try:
        decode(data)
    except ValueError as error:
        return str(error)
    return None
