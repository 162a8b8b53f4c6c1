from collections.abc import Callable

import pytest
import torch
from pictures import CLASSES, picture, rows
from scores import evaluate
from torch import Tensor

from time_ray.clip import evaluate as evaluation
from time_ray.clip import features
from time_ray.clip.models import Clip, create
from time_ray.core.errors import UserError
from time_ray.core.model import ModelSpec
from time_ray.core.preprocessing import Resizing
from time_ray.core.scoring import Scoring
from time_ray.data import images
from time_ray.data.dataset import Dataset, Row
from time_ray.data.decoding import decode
from time_ray.data.images import KEPT_SIDE, fit

Make = Callable[..., Dataset]
Weights = dict[str, Tensor]


def plainly(clip: Clip, weights: Weights, dataset: Dataset) -> float:
    """Accuracy by open_clip's own calls, one image at a time."""
    module = clip.load(weights).eval()
    split = dataset.split("test")
    hits = 0
    with torch.no_grad():
        heads = [
            module.encode_text(clip.tokenize([t.format(name) for t in dataset.card.templates]), normalize=True).mean(0)
            for name in dataset.card.classes
        ]
        head = torch.nn.functional.normalize(torch.stack(heads), dim=-1)
        for data, label in zip(split.images(range(len(split))), split.labels, strict=True):
            pixels = torch.tensor(list(fit(decode(data), Resizing(16)).tobytes()), dtype=torch.uint8).view(1, 16, 16, 3)
            vector = module.encode_image(clip.pixels(pixels.permute(0, 3, 1, 2)), normalize=True)
            hits += int((vector @ head.T).argmax()) == label
    return 100 * hits / len(split)


@pytest.fixture
def datasets(make_dataset: Make) -> list[Dataset]:
    big = [Row(picture(i, (KEPT_SIDE + i, 80)), ("text",), i % 2, "") for i in range(9)]
    return [
        make_dataset("pets", [], rows(40)),
        make_dataset("big", [], big, classes=("sun", "moon"), templates=("{}",)),
    ]


def test_scores_are_those_of_a_plain_loop(clip: Clip, weights: Weights, datasets: list[Dataset]):
    wanted = {dataset.card.name: plainly(clip, weights, dataset) for dataset in datasets}
    assert evaluate(clip, [weights], datasets) == [wanted]
    assert 0 < wanted["pets"] < 100


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_scores_do_not_depend_on_the_batch_size(clip: Clip, weights: Weights, datasets: list[Dataset], batch_size: int):
    assert evaluate(clip, [weights], datasets, batch_size=batch_size) == evaluate(clip, [weights], datasets)


def test_models_of_one_pass_score_as_each_alone(clip: Clip, weights: Weights, datasets: list[Dataset]):
    other = weights | {"visual.proj": -weights["visual.proj"]}
    before = {name: tensor.clone() for name, tensor in weights.items()}
    alone = [evaluate(clip, [model], datasets)[0] for model in (weights, other)]
    assert evaluate(clip, [weights, other, weights], datasets) == [*alone, alone[0]]
    assert alone[0] != alone[1]
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())


def test_images_are_decoded_once_and_prompts_go_once_through_each_model(
    clip: Clip, weights: Weights, datasets: list[Dataset], monkeypatch: pytest.MonkeyPatch
):
    decoded, texts = [], []
    text_features = evaluation.text_features
    monkeypatch.setattr(images, "decode", lambda data: decoded.append(data) or decode(data))
    monkeypatch.setattr(evaluation, "text_features", lambda *one: texts.append(len(one[1])) or text_features(*one))
    evaluate(clip, [weights] * 3, datasets)
    assert len(decoded) == sum(len(dataset.split("test")) for dataset in datasets)
    prompts = sum(len(dataset.card.classes) * len(dataset.card.templates) for dataset in datasets)
    assert texts == [1, *[prompts] * 3]  # and one text for the width of the vectors


def test_prompts_for_all_datasets_replace_their_own(clip: Clip, weights: Weights, make_dataset: Make):
    prompts = ("one {} alone", "{}", "many of {}")
    own, bare = make_dataset("own", [], rows(40), templates=prompts), make_dataset("bare", [], rows(40), templates=())
    wanted = plainly(clip, weights, own)
    found = evaluate(clip, [weights], [own, bare], scoring=Scoring(templates=prompts))
    assert found == [{"own": wanted, "bare": wanted}]
    assert evaluate(clip, [weights], [own], scoring=Scoring(templates=("{}",)))[0]["own"] != wanted


def test_nothing_to_score_is_no_score(clip: Clip, weights: Weights, datasets: list[Dataset]):
    assert evaluate(clip, [], datasets) == []
    assert evaluate(clip, [weights, weights], []) == [{}, {}]


def test_what_cannot_be_scored_is_told_at_once(clip: Clip, weights: Weights, make_dataset: Make):
    unfit = [
        make_dataset("untested", rows(3)),
        make_dataset("captions", rows(3), rows(3), kind="captions", classes=(), templates=()),
        make_dataset("unprompted", [], rows(3), templates=()),
    ]
    with pytest.raises(UserError) as caught:
        evaluate(clip, [weights], unfit)
    assert [fault.split(",")[0] for fault in caught.value.faults] == [
        "dataset untested: no test images",
        "dataset captions: no classes",
        "dataset unprompted: no class prompts",
    ]


@pytest.mark.parametrize("name", ["test-small", "test-quick", "test-custom"])
@pytest.mark.parametrize("onednn", [False, True])
def test_features_are_open_clips(
    models_folder: object, weights: Weights, monkeypatch: pytest.MonkeyPatch, name: str, *, onednn: bool
):
    monkeypatch.setattr(features, "HAS_ONEDNN", onednn and features.HAS_ONEDNN)
    clip = create(ModelSpec(name=name))
    if name != "test-custom":
        clip.load(weights)
    module = clip.module.eval()
    images = torch.randint(0, 256, (5, 16, 16, 3), dtype=torch.uint8)
    tokens = clip.tokenize(["a", *(f"the {name} that sits on a mat" for name in CLASSES), "x " * 40])
    with torch.no_grad():
        image = module.encode_image(clip.pixels(images.permute(0, 3, 1, 2)), normalize=True)
        text = module.encode_text(tokens, normalize=True)
    torch.testing.assert_close(features.image_features(clip, images), image, atol=2e-6, rtol=0)
    torch.testing.assert_close(features.text_features(clip, tokens), text, atol=2e-6, rtol=0)
