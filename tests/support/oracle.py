"""A model that knows pictures and their captions by number; workers import this file, too."""

import io

import torch
from PIL import Image
from torch import Tensor, nn

from time_ray.clip.models import Clip
from time_ray.core.preprocessing import Preprocessing, Resizing
from time_ray.data.dataset import Row

SIZE = 4
WIDTH = 48
MOST = 5  # captions a picture


class Visual(nn.Module):
    image_size = SIZE


class Oracle(nn.Module):
    """Two tables of vectors: each picture's [count, WIDTH], and its captions' [MOST * count, WIDTH]."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.visual = Visual()
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.pictures = nn.Parameter(torch.zeros(count, WIDTH))
        self.texts = nn.Parameter(torch.zeros(MOST * count, WIDTH))

    def encode_image(self, pixels: Tensor) -> Tensor:
        red, green, _ = pixels[:, :, 0, 0].round().long().T
        return self.pictures[256 * red + green]

    def encode_text(self, tokens: Tensor) -> Tensor:
        return self.texts[tokens[:, 0]]


def oracle(count: int) -> Clip:
    def tokenize(texts: list[str]) -> Tensor:
        numbers = [[int(word) for word in text.split() if word.isdigit()] for text in texts]
        return torch.tensor([[MOST * found[-1] + found[0] if found else 0] for found in numbers])

    return Clip("oracle", Oracle(count), tokenize, Preprocessing(Resizing(SIZE), (0.0,) * 3, (1 / 255,) * 3))


def all_knowing(count: int) -> dict[str, Tensor]:
    """Weights under which a caption's vector is that of its picture."""
    vectors = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(0))
    return {"logit_scale": torch.zeros(()), "pictures": vectors, "texts": vectors.repeat_interleave(MOST, 0)}


def numbered(number: int, captions: int, label: int = -1) -> Row:
    stream = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), (number // 256, number % 256, 0)).save(stream, "PNG")
    return Row(stream.getvalue(), tuple(f"caption {i} of {number}" for i in range(captions)), label, str(number))
