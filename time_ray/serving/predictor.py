"""Zero-shot classification with the CLIP model of a folder: this file lies beside its weights, and needs no time_ray.

What it needs is open_clip, with what comes with it, and pandas. MLflow loads it by `_load_pyfunc`.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import normalize

CLASSES = "classes.json"
CONFIG = "open_clip_config.json"
VOCABULARY = "merges.txt.gz"  # of models that do not have CLIP's own
TEMPLATE = "a photo of a {}."  # of a class that nobody gave prompts for
COLUMN = "image"
MOST_PIXELS = 89_478_485
MOST_RATIO = 200  # of the longer side to the shorter one: a sliver is resized to gigabytes
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # others run programs, or read other files
BATCH = 128
TOKENIZER_SETTINGS = frozenset(  # of open_clip's own tokenizers; others may name code that is to be run
    (
        "additional_special_tokens",
        "bpe_path",
        "clean",
        "context_length",
        "language",
        "reduction_mask",
        "strip_sep_token",
    )
)
Prompts = tuple[str, ...]


class Predictor:
    """The model of a folder, on a GPU if there is one.

    Attributes:
        known: `classes.json`: by dataset the classes and their templates, and which of them were taught.

    """

    def __init__(self, folder: str | Path, device: str | None = None) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        config = json.loads(Path(folder, CONFIG).read_text(encoding="utf-8"))["model_cfg"]
        _refuse_foreign_code(Path(folder), config["text_cfg"])
        self.known = json.loads(Path(folder, CLASSES).read_text(encoding="utf-8"))
        name, vocabulary = f"local-dir:{folder}", Path(folder, VOCABULARY)
        own = {"bpe_path": str(vocabulary)} if vocabulary.exists() else {}
        self._tokenize = open_clip.get_tokenizer(name, **own)
        self._model, self._transform = open_clip.create_model_from_pretrained(name, device=self.device)
        self._model.eval()
        self._width = int(config["embed_dim"])
        self._heads: dict[tuple[Prompts, ...], Tensor] = {}

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Probabilities of the classes for each image, a row an image and a column a class.

        Args:
            model_input: an image, or several in a list, a Series, an array or the column `image` of a DataFrame (or
                its only one). An image is a path, the bytes of a file, a `data:` URL, an array [height, width, 3] of
                0 to 255, or one of Pillow's.
            params: `classes`, names to choose from; `dataset`, whose classes those are; `templates`, prompts with {}
                for a name. Without any: the classes that the model was taught, each with its dataset's prompts.

        Raises:
            ValueError: saying what is wrong with an image or a parameter.

        """
        asked = {name: value for name, value in (params or {}).items() if value is not None and len(value)}
        index, values = _images_in(model_input)
        prompts = self._prompts(asked)
        heads = self._class_vectors(tuple(prompts.values()))
        with torch.inference_mode():
            scale = self._model.logit_scale.exp()
            parts = [
                (scale * self._image_vectors(values[start : start + BATCH]) @ heads.T).softmax(dim=-1).cpu()
                for start in range(0, len(values), BATCH)
            ]
        found = torch.cat(parts).numpy() if parts else np.empty((0, len(heads)), dtype=np.float32)
        return pd.DataFrame(found, index=index, columns=list(prompts))

    def _prompts(self, asked: Mapping[str, Any]) -> dict[str, Prompts]:
        """The prompts of every class that is asked for, by the name of its column."""
        templates = asked.get("templates", ())
        if bad := [template for template in templates if "{}" not in template]:
            raise ValueError(f"template '{bad[0]}' has no {{}} for the name of a class; put it in")
        return {
            column: tuple(template.replace("{}", name) for template in templates or own)
            for column, name, own in self._asked_classes(asked)
        }

    def _asked_classes(self, asked: Mapping[str, Any]) -> Iterator[tuple[str, str, Sequence[str]]]:
        """Of each class its column, its name and the templates that it has."""
        datasets: Mapping[str, Any] = self.known["datasets"]
        if "dataset" in asked:
            if asked["dataset"] not in datasets:
                raise ValueError(f"dataset '{asked['dataset']}' is not known; known: {', '.join(datasets)}")
            datasets = {asked["dataset"]: datasets[asked["dataset"]]}
        concepts = [(dataset, name) for dataset, of in datasets.items() for name in of["classes"]]
        if "classes" in asked:
            home = {name: dataset for dataset, name in reversed([*self._taught, *concepts])}
            for name in dict.fromkeys(map(str, asked["classes"])):
                yield name, name, self._templates(home[name]) if name in home else (TEMPLATE,)
            return
        chosen = concepts if "dataset" in asked else self._taught
        count = Counter(name for _, name in chosen)
        for dataset, name in chosen:
            yield name if count[name] == 1 else f"{dataset}: {name}", name, self._templates(dataset)

    @property
    def _taught(self) -> list[tuple[str, str]]:
        return [(dataset, name) for dataset, name in self.known["taught"]]

    def _templates(self, dataset: str) -> Sequence[str]:
        return self.known["datasets"][dataset]["templates"] or (TEMPLATE,)

    def _class_vectors(self, classes: tuple[Prompts, ...]) -> Tensor:
        """Unit vectors [classes, D]: of the sum of the unit vectors of each class's prompts."""
        if classes not in self._heads:
            texts = [(number, text) for number, prompts in enumerate(classes) for text in prompts]
            sums = torch.zeros(len(classes), self._width)
            with torch.inference_mode():
                for start in range(0, len(texts), BATCH):
                    numbers, some = zip(*texts[start : start + BATCH], strict=True)
                    vectors = self._model.encode_text(self._tokenize(list(some)).to(self.device), normalize=True)
                    sums.index_add_(0, torch.tensor(numbers), vectors.float().cpu())
            self._heads = {classes: normalize(sums, dim=-1).to(self.device)}  # the last ones asked for are kept
        return self._heads[classes]

    def _image_vectors(self, values: Sequence[Any]) -> Tensor:
        pixels = torch.stack([self._transform(_opened(value)) for value in values])
        vectors: Tensor = self._model.encode_image(pixels.to(self.device), normalize=True)
        return vectors


def _load_pyfunc(path: str) -> Predictor:
    """What MLflow calls to load the model of a folder."""
    return Predictor(path)


def _refuse_foreign_code(folder: Path, text_cfg: Mapping[str, Any]) -> None:
    """Raise ValueError where a configuration would have code run that comes with neither open_clip nor transformers."""
    foreign = sorted({*text_cfg.get("tokenizer_kwargs", {})} - TOKENIZER_SETTINGS)
    if "hf_model_name" in text_cfg:
        foreign.append("hf_model_name")
    for path in folder.glob("*.json"):  # of transformers, which may read each of them
        found = json.loads(path.read_text(encoding="utf-8"))
        foreign += [f"auto_map in {path.name}"] if isinstance(found, dict) and "auto_map" in found else []
    if foreign:
        raise ValueError(f"{folder}: {', '.join(foreign)} may run foreign code; the model is not loaded")


def _images_in(given: Any) -> tuple[pd.Index | None, list[Any]]:
    """The images that are given, and the index of the table that they come from."""
    if isinstance(given, pd.DataFrame):
        if COLUMN not in given and given.shape[1] != 1:
            raise ValueError(f"no column '{COLUMN}' among {', '.join(map(str, given.columns))}; name it so")
        given = given[COLUMN] if COLUMN in given else given.iloc[:, 0]
    if isinstance(given, pd.Series):
        return given.index, list(given)
    if isinstance(given, (str, bytes, Path, Image.Image)) or (isinstance(given, np.ndarray) and given.ndim == 3):
        return None, [given]
    return None, list(given)


def _opened(value: Any) -> Image.Image:
    """The image in RGB as a viewer shows it: upright, on white, 8 bits a channel."""
    if isinstance(value, Image.Image):
        return _in_rgb(value)
    if isinstance(value, str) and value.startswith("data:"):
        value = base64.b64decode(value.partition(",")[2])
    if isinstance(value, (str, Path)):
        value = Path(value).read_bytes()
    if isinstance(value, bytes):
        try:
            image = Image.open(BytesIO(value), formats=FORMATS)
            if image.width * image.height > MOST_PIXELS or max(image.size) > MOST_RATIO * min(image.size):
                raise ValueError(f"{image.width} × {image.height} pixels are too many, or too narrow")
            return _in_rgb(image)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{len(value)} bytes are no whole image, as {', '.join(FORMATS)} files are") from error
    array = np.asarray(value)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() > 255:
        raise ValueError(f"an array {list(array.shape)} of {array.dtype} is no image; give [height, width, 3] of uint8")
    return Image.fromarray(array.astype(np.uint8))


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = ImageOps.exif_transpose(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
