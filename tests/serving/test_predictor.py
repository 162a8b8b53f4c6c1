"""What a model's folder predicts is what evaluation found, wherever the folder lies and without time_ray."""

import io
import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import batch_norm
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from pictures import CLASSES, picture, rows
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from time_ray import api
from time_ray.clip.evaluate import outcomes
from time_ray.clip.models import create
from time_ray.clip.preprocessing import open_clip_config
from time_ray.core.model import ModelSpec
from time_ray.core.outcomes import Question
from time_ray.data.dataset import Dataset, Row
from time_ray.per_image import PerImage
from time_ray.serving.model_folder import CLASSES as CLASSES_FILE
from time_ray.serving.model_folder import CONFIG, WEIGHTS
from time_ray.serving.predictor import Predictor

Make = Callable[..., Any]
WITHOUT_TIME_RAY = """
import json, sys
sys.modules["time_ray"] = None  # importing it fails
from pathlib import Path
import mlflow
database, registered, folder, moved = sys.argv[1:]
mlflow.set_tracking_uri(database)
model = mlflow.pyfunc.load_model(registered)
said = {"taught": list(model.predict(model.input_example))}
said["names"] = [one.name for one in model.metadata.signature.outputs]
Path(folder).rename(moved)
model = mlflow.pyfunc.load_model(moved)
for name, paths in json.load(sys.stdin).items():
    said[name] = model.predict(paths, params={"dataset": name}).to_numpy().argmax(axis=1).tolist()
print(json.dumps(said))
"""


def test_a_registered_winner_that_moved_predicts_what_was_scored(new_experiment: Make, tmp_path: Path) -> None:
    path = new_experiment(tmp_path, init="zs", deploy="all", technique="average", stream={"tasks": 2})
    opened = api.open_experiment(path)
    assert api.sweep(opened).exit_code == 0
    uri = api.register(opened, api.best(opened))
    (model,) = (tmp_path / "runs" / "mlartifacts").rglob("MLmodel")
    moved = tmp_path / "else where"
    data = opened.study.datasets.open()
    datasets = [*data.adaptation, *data.evaluation]
    images = {one.card.name: kept(one, tmp_path / one.card.name) for one in datasets}
    words = [sys.executable, "-I", "-c", WITHOUT_TIME_RAY, f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"]
    done = subprocess.run(
        [*words, uri, str(model.parent), str(moved)],
        input=json.dumps(images),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr

    said = json.loads(done.stdout)
    (result,) = api.status(opened)
    right = PerImage(opened.store).outcomes(result.rows[-1].scores_key)
    assert right is not None
    for dataset in datasets:
        nearest = np.array(said[dataset.card.name])
        assert (nearest == dataset.split("test").labels).tolist() == right[Question(dataset.card.name)].tolist()
    assert said["taught"] == said["names"]
    assert sorted(said["taught"]) == sorted(opened.study.datasets.adaptation[0].classes)
    assert len(list(moved.rglob("*.safetensors"))) == 1


def kept(dataset: Dataset, folder: Path) -> list[str]:
    """The test images as files."""
    folder.mkdir()
    split = dataset.split("test")
    for number, data in enumerate(split.images(range(len(split)))):
        (folder / str(number)).write_bytes(data)
    return [str(folder / str(number)) for number in range(len(split))]


@pytest.fixture
def folder(tmp_path: Path, spec: ModelSpec, weights: dict[str, Tensor]) -> Path:
    return write(tmp_path / "model", spec, weights)


def write(folder: Path, spec: ModelSpec, weights: dict[str, Tensor]) -> Path:
    folder.mkdir()
    save_file(weights, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(open_clip_config(spec)))
    pets = {"classes": CLASSES, "templates": ["a {}.", "the {}."]}
    others = {"classes": ["sun", "owl"], "templates": []}
    taught = [["pets", "dog"], ["pets", "owl"], ["others", "owl"]]
    (folder / CLASSES_FILE).write_text(json.dumps({"taught": taught, "datasets": {"pets": pets, "others": others}}))
    return folder


@pytest.mark.parametrize("name", ["test-small", "test-quick", "test-custom", "test-resnet", "test-timm"])
def test_it_agrees_with_evaluation_on_any_architecture(
    name: str, models_folder: Path, tmp_path: Path, make_dataset: Make
) -> None:
    """Pictures of all forms: other sizes, upright by EXIF alone, transparent, grey of 16 bits."""
    spec = ModelSpec(name=name)
    clip = batch_norm.model(name, models_folder) if name in batch_norm.CONFIGS else create(spec)
    weights = batch_norm.start(clip)
    dataset = make_dataset("pets", [], [*rows(20), *(Row(data, ("text",), 0, "") for data in odd_pictures())])
    (right,) = outcomes(clip, [weights], [dataset])
    split = dataset.split("test")
    table = Predictor(write(tmp_path / "model", spec, weights)).predict(
        split.images(range(len(split))), {"dataset": "pets"}
    )
    nearest = table.to_numpy().argmax(axis=1)
    assert (nearest == split.labels).tolist() == right[Question("pets")].tolist()
    assert table.to_numpy().sum(axis=1) == pytest.approx(1)


def odd_pictures() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    return [
        encoded(Image.fromarray(noise), "PNG"),
        encoded(Image.fromarray(noise[..., :3]), "JPEG", exif=exif),
        encoded(Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG"),
        encoded(Image.fromarray(noise[..., :3]).quantize(8), "PNG", transparency=1),
    ]


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def test_images_come_in_any_form(folder: Path) -> None:
    predictor = Predictor(folder, "cpu")
    data = picture(1, (20, 16))
    file = folder / "a picture.png"
    file.write_bytes(data)
    array: NDArray[np.uint8] = np.asarray(Image.open(file))
    (wanted,) = predictor.predict(data).to_numpy().tolist()

    def same(given: Any, count: int = 1) -> None:
        assert predictor.predict(given).to_numpy() == pytest.approx(np.array([wanted] * count), abs=1e-6)

    for one in (file, str(file), array, Image.open(file), f"data:image/png;base64,{b64encode(data).decode()}"):
        same(one)
        same([one, data], 2)
    same(np.stack([array] * 3), 3)
    same(array.astype(int))
    same(array.tolist() and [array.tolist()])
    same(pd.DataFrame({"path": [str(file)]}))
    table = pd.DataFrame({"image": [array, data], "label": [1, 2]}, index=["a", "b"])
    assert list(predictor.predict(table).index) == ["a", "b"]
    assert predictor.predict([]).shape == (0, 3)


def test_classes_are_those_taught_or_those_asked_for(folder: Path) -> None:
    predictor, data = Predictor(folder, "cpu"), picture(1)
    assert list(predictor.predict(data)) == ["dog", "pets: owl", "others: owl"]
    assert list(predictor.predict(data, {"dataset": "pets"})) == list(CLASSES)
    plain = predictor.predict(data, {"classes": ["dog", "lynx"]})
    spelt = predictor.predict(data, {"classes": ["dog", "lynx"], "templates": ["a photo of a {}."]})
    assert list(plain) == list(spelt) == ["dog", "lynx"]
    assert plain["dog"][0] != spelt["dog"][0]  # a name that is known has its dataset's prompts
    unset = {"classes": [], "templates": [], "dataset": None}  # as MLflow passes what is not given
    assert predictor.predict(data, unset).equals(predictor.predict(data))


@pytest.mark.parametrize(
    ("given", "params", "fault"),
    [
        (picture(1), {"dataset": "pests"}, "dataset 'pests' is not known; known: pets, others"),
        (picture(1), {"templates": ["a pet"]}, r"template 'a pet' has no \{\} for the name of a class"),
        (picture(1)[:200], {}, "200 bytes are no whole image"),
        (b"%!PS-Adobe", {}, "10 bytes are no whole image"),
        (np.zeros((4, 4)), {}, r"an array \[4\] of float64 is no image"),
        (np.full((4, 4, 3), 0.5), {}, r"an array \[4, 4, 3\] of float64 is no image"),
        (np.full((4, 4, 3), 300), {}, r"an array \[4, 4, 3\] of int64 is no image"),
        (pd.DataFrame({"a": [""], "b": [""]}), {}, "no column 'image' among a, b"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, given: Any, params: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Predictor(folder, "cpu").predict(given, params)
