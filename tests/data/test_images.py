import gc
import io
from collections.abc import Callable

import numpy as np
import pytest
from pictures import picture, rows
from PIL import Image
from torchvision import transforms

from time_ray.core.errors import CellError
from time_ray.core.preprocessing import Resizing
from time_ray.data.dataset import Dataset, Row
from time_ray.data.decoding import decode
from time_ray.data.images import Decoded, _kept, fit


@pytest.mark.parametrize("size", [(16, 16), (40, 40), (50, 31), (17, 90), (10, 10)])
def test_fitting_is_torchvisions_resize_and_centre_crop(size: tuple[int, int]):
    image = decode(picture(1, size))
    resize = transforms.Resize(16, transforms.InterpolationMode.BICUBIC)
    wanted = transforms.CenterCrop(16)(resize(image))
    assert np.array_equal(np.asarray(fit(image, Resizing(16))), np.asarray(wanted))


def test_every_mode_becomes_rgb():
    for mode in ("L", "P", "RGBA", "CMYK"):
        stream = io.BytesIO()
        Image.new(mode, (4, 4)).save(stream, "TIFF")
        assert decode(stream.getvalue()).mode == "RGB"


def test_small_images_are_decoded_once_while_their_split_lives(make_dataset: Callable[..., Dataset]):
    split = make_dataset("pets", rows(6)).split("train")
    first = Decoded(split).take([3, 1, 3])
    assert [pixels.tobytes() for pixels in first] == [decode(picture(i)).tobytes() for i in (3, 1, 3)]
    gc.collect()  # splits of other tests
    count = len(_kept)
    split.images = lambda indices: [picture(100 + i) for i in indices]
    again = Decoded(split).take([1, 3, 2])
    assert [pixels.tobytes() for pixels in again] == [decode(picture(i)).tobytes() for i in (1, 3, 102)]
    del split
    gc.collect()
    assert len(_kept) == count - 1


def test_threads_decode_the_same_and_name_the_same_broken_row(make_dataset: Callable[..., Dataset]):
    sound = [Row(picture(i, (90 + i, 70)), ("text",), 0, "") for i in range(12)]
    split = make_dataset("big", sound).split("train")
    alone, together = (Decoded(split, Resizing(65), threads=threads).block(np.arange(12)) for threads in (1, 3))
    assert np.array_equal(alone, together)
    broken = make_dataset("broken", [*sound[:7], Row(b"no image", ("text",), 0, "")]).split("train")
    with pytest.raises(CellError, match="row 7: not a readable image"):
        Decoded(broken, Resizing(65), threads=3).block(np.arange(8))
