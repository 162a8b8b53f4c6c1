import gc
import io
from collections.abc import Callable

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
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


@pytest.mark.parametrize("size", [(16, 16), (40, 40), (50, 31), (17, 90), (10, 10), (64, 3), (3, 64)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("mode", "fill"), [("shortest", 0), ("squash", 0), ("longest", 0), ("longest", 255)])
def test_fitting_is_open_clips_transform(size: tuple[int, int], interpolation: str, mode: str, fill: int):
    config = PreprocessCfg(size=16, resize_mode=mode, interpolation=interpolation, fill_color=fill)
    resize = transforms.Compose(image_transform_v2(config, is_train=False).transforms[:-2])  # up to the tensor
    image = decode(picture(1, size))
    found = np.asarray(fit(image, Resizing(16, mode, interpolation, fill)))
    assert np.array_equal(found, np.asarray(resize(image)))


def test_a_line_of_pixels_stays_one() -> None:
    found = np.asarray(fit(decode(picture(1, (200, 3))), Resizing(16, "longest", fill=255)))  # open_clip raises here
    assert (found != 255).any(axis=(1, 2)).nonzero()[0].tolist() == [7]


def test_what_is_kept_in_memory_was_made_in_the_same_way(make_dataset: Callable[..., Dataset]):
    split = make_dataset("pets", [Row(picture(i, (40, 20)), ("text",), 0, "") for i in range(3)]).split("train")
    ways = [Resizing(16, mode, how) for mode in ("shortest", "longest", "squash") for how in ("bicubic", "bilinear")]
    found = {Decoded(split, way).block(np.arange(3)).tobytes() for way in ways}
    assert len(found) == len(ways)
    again = {Decoded(split, way).block(np.arange(3)).tobytes() for way in ways}
    assert again == found


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
