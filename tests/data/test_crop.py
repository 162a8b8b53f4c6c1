import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import picture
from torchvision import transforms

from time_ray.core.preprocessing import Interpolation, Resizing
from time_ray.data.crop import CROP_DRAWS, _crop_box, crop
from time_ray.data.decoding import decode

OTHER: dict[Interpolation, Interpolation] = {"bicubic": "bilinear", "bilinear": "bicubic"}
SIDES = st.integers(1, 300)
DRAWS = st.lists(st.floats(0, 1, exclude_max=True), min_size=CROP_DRAWS, max_size=CROP_DRAWS)


@given(SIDES, SIDES, DRAWS)
def test_a_crop_lies_inside(width: int, height: int, draws: list[float]):
    left, top, w, h = _crop_box(width, height, draws)
    assert 0 <= left <= left + w <= width
    assert 0 <= top <= top + h <= height
    assert min(w, h) > 0


def test_crops_keep_nine_tenths_in_bounded_ratio():
    draws = np.random.default_rng(0).random((500, CROP_DRAWS))
    boxes = [_crop_box(300, 250, row.tolist()) for row in draws]
    areas = [w * h / (300 * 250) for _, _, w, h in boxes]
    ratios = [w / h for _, _, w, h in boxes]
    assert 0.89 < min(areas) < 0.91
    assert len(set(boxes)) > 300
    assert all(0.74 < ratio < 1.34 for ratio in ratios)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_a_crop_is_cut_and_then_resized(interpolation: Interpolation):
    image = decode(picture(2, (40, 30)))
    draws = np.full(CROP_DRAWS, 0.5)
    left, top, w, h = _crop_box(40, 30, draws.tolist())
    found = crop(np.asarray(image), Resizing(16, interpolation=interpolation), draws)
    mode = transforms.InterpolationMode[interpolation.upper()]
    wanted = transforms.functional.resized_crop(image, top, left, h, w, [16, 16], mode)
    difference = found.permute(1, 2, 0).numpy().astype(int) - np.asarray(wanted)
    assert abs(difference).max() <= 2  # Pillow rounds otherwise
    assert difference.any() or interpolation == "bilinear"
    assert not np.array_equal(found, crop(np.asarray(image), Resizing(16, interpolation=OTHER[interpolation]), draws))


def crops() -> list[str]:
    draws = np.random.default_rng(0)
    pixels = [draws.integers(0, 256, (30 + i, 70 - i, 3), dtype=np.uint8) for i in range(40)]
    found = [crop(one, Resizing(24), draws.random(CROP_DRAWS)).numpy().tobytes() for one in pixels]
    return [torch.backends.cpu.get_cpu_capability(), hashlib.sha256(b"".join(found)).hexdigest()]


@pytest.mark.nightly
def test_a_crop_has_the_same_bits_on_a_processor_without_vectors():
    code = "import test_crop; print(*test_crop.crops())"
    plain = os.environ | {"ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], env=plain, capture_output=True, text=True, check=True)
    capability, digest = run.stdout.split()
    assert capability == "DEFAULT"
    assert digest == crops()[1]
