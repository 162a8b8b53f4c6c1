"""Preprocessing and activation of every model: who decides them, what they do, and that they are open_clip's."""

import copy
import json
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from pictures import CLASSES, SMALL, picture
from safetensors.torch import save_file
from scores import evaluate
from torch import Tensor, nn

from time_ray.clip import architectures
from time_ray.clip.architectures import Architecture
from time_ray.clip.models import build, create
from time_ray.clip.preprocessing import CONFIG, Resolved, open_clip_config, resolve
from time_ray.clip.weights import architecture_config, known_name
from time_ray.core.errors import UserError
from time_ray.core.model import ModelSpec
from time_ray.core.preprocessing import OPENAI_MEAN, OPENAI_STD, Preprocessing
from time_ray.data.dataset import Dataset, Row
from time_ray.data.decoding import decode
from time_ray.data.images import KEPT_SIDE, fit

TAG = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear", "resize_mode": "squash"}
USUAL = {"size": 16, "resize": "shortest", "interpolation": "bicubic", "mean": [*OPENAI_MEAN], "std": [*OPENAI_STD]}
QUICK = "ViT-B-32-quickgelu"


@pytest.fixture(autouse=True)
def _tags(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small architecture has two tags, one of which was trained with another activation."""
    tags = {"squashed": TAG, "quick": {**TAG, "quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, spec.name, tags)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    path.touch()
    return path


def config_of(name: str, **changes: object) -> dict[str, Any]:
    """What open_clip writes of an architecture."""
    return {"model_cfg": {**(architecture_config(name) or {}), **changes}, "preprocess_cfg": {}}


def beside(file: Path, **preprocess: object) -> None:
    written = {**config_of("test-small"), "preprocess_cfg": preprocess}
    file.with_name(CONFIG).write_text(json.dumps(written), encoding="utf-8")


def small(weights: Path | str | None = None, preprocess: object = None, name: str = "test-small") -> ModelSpec:
    return ModelSpec(name=name, weights=None if weights is None else str(weights), preprocess=preprocess)


def refused(spec: ModelSpec) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        resolve(spec)
    return caught.value.faults


# every pair of architecture and tag


def activations(module: nn.Module) -> Counter[str]:
    return Counter(type(part).__name__ for part in module.modules() if "GELU" in type(part).__name__)


@pytest.fixture
def open_clips(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], nn.Module]:
    """open_clip's own factory: it finds every tag, and a tower of one configuration is built once, without memory."""
    known: dict[str, nn.Module] = {}

    def once(kind: type[nn.Module]) -> Callable[..., nn.Module]:
        def made(**config: Any) -> nn.Module:
            key = kind.__name__ + json.dumps({"quick_gelu": False, **config}, sort_keys=True, default=str)
            if key not in known:
                with torch.device("meta"):
                    known[key] = kind(**config)
            return known[key]

        return made

    for kind in (open_clip.factory.CLIP, open_clip.factory.CustomTextCLIP):
        monkeypatch.setattr(open_clip.factory, kind.__name__, once(kind))
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: "nowhere")
    monkeypatch.setattr("timm.layers.weight_init._trunc_normal_", lambda *_: None)  # half of the time, for nothing

    def make(name: str, tag: str) -> nn.Module:
        with warnings.catch_warnings(action="ignore"):
            return open_clip.create_model(name, pretrained=tag, load_weights=False, device="meta")

    return make


@pytest.mark.parametrize("one_of", [5, pytest.param(1, marks=pytest.mark.nightly)])
def test_every_pair_of_architecture_and_tag_is_open_clips_or_refused(
    open_clips: Callable[[str, str], nn.Module], one_of: int
) -> None:
    found: Counter[str] = Counter()
    pairs = [(name, tag) for name, tag in open_clip.list_pretrained() if not name.startswith("test-")]
    for name, tag in pairs[::one_of]:
        config = open_clip.get_pretrained_cfg(name, tag)
        try:
            known_name(name)
            ours = resolve(ModelSpec(name=name, weights=tag))
        except UserError as error:
            (line,) = error.faults
            found["unsupported" if "supported" in line else "contradiction"] += 1
            if "supported" not in line:
                right = line.rpartition("; name ")[2]
                assert (right, tag) in pairs, line
                assert resolve(ModelSpec(name=right, weights=tag)).quick_gelu == config.get("quick_gelu", False)
            continue
        theirs = open_clips(name, tag)
        wanted = dict(theirs.visual.preprocess_cfg)
        written = open_clip_config(ModelSpec(name=name, weights=tag))["preprocess_cfg"]
        wanted["size"] = wanted["size"] if isinstance(wanted["size"], int) else wanted["size"][0]
        assert {"fill_color": 0, **written} == {**wanted, "mean": [*wanted["mean"]], "std": [*wanted["std"]]}, (
            name,
            tag,
        )
        assert activations(build(name, device="meta", quick_gelu=ours.quick_gelu)) == activations(theirs), (name, tag)
        assert config.get("quick_gelu", False) == ours.quick_gelu, (name, tag)
        found["same"] += 1
    assert sum(found.values()) == len(pairs[::one_of])
    assert found["same"] > 100 / one_of
    assert found["contradiction"] > 20 / one_of


@pytest.mark.parametrize(
    ("name", "tag", "line"),
    [
        ("ViT-B-32", "openai", "tag openai is for QuickGELU, but the model would have GELU; name ViT-B-32-quickgelu"),
        ("ViT-H-14-378", "dfn5b", "is for QuickGELU, but the model would have GELU; name ViT-H-14-378-quickgelu"),
    ],
)
@pytest.mark.parametrize("how", ["weights", "preprocess", "both"])
def test_a_tag_of_another_activation_names_the_architecture(
    name: str, tag: str, line: str, how: str, file: Path
) -> None:
    weights = str(file) if how == "preprocess" else tag
    (found,) = refused(ModelSpec(name=name, weights=weights, preprocess=None if how == "weights" else tag))
    assert found.startswith(f"model {name}: ")
    assert found.endswith(line)


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_the_experiment_may_name_the_activation(file: Path, quick_gelu: bool) -> None:
    spec = small(file, {"quick_gelu": quick_gelu})
    assert resolve(spec).identity == ({"quick_gelu": True} if quick_gelu else {})
    assert set(activations(create(spec).module)) == {"QuickGELU" if quick_gelu else "GELU"}
    quick = small(file, {"quick_gelu": quick_gelu}, "test-quick")
    assert set(activations(create(quick).module)) == {"QuickGELU" if quick_gelu else "GELU"}


def test_an_activation_that_the_tag_does_not_have_is_refused() -> None:
    assert resolve(small("quick", {"quick_gelu": True})).quick_gelu
    for spec in (small("quick"), small("squashed", {"quick_gelu": True})):
        (line,) = refused(spec)
        assert "but the model would have" in line
    (line,) = refused(ModelSpec(name=QUICK, weights="openai", preprocess={"quick_gelu": False}))
    assert line.endswith("is for QuickGELU, but the model would have GELU; leave preprocess.quick_gelu out")


# who decides


def values(found: Resolved) -> dict[str, Any]:
    return found.preprocessing.as_dict()


def test_a_tag_brings_all_of_its_preprocessing() -> None:
    found = resolve(small("squashed"))
    wanted = {"resize": "squash", "interpolation": "bilinear", "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    assert values(found) == {"size": 16, **wanted}
    assert found.identity == wanted
    assert (found.source, found.assumed) == ("tag squashed", "")


@pytest.mark.parametrize("tag", ["squashed", {"tag": "squashed"}, {"tag": "squashed", "size": 16}])
def test_a_file_may_be_said_to_be_of_a_tag(file: Path, tag: object) -> None:
    found = resolve(small(file, tag))
    assert found.identity == resolve(small("squashed")).identity
    assert found.assumed == ""


def test_single_values_replace_those_of_the_tag() -> None:
    for spec in (
        small("squashed", {"resize": "longest", "fill": 9}),
        small(None, {"tag": "squashed", "resize": "longest", "fill": 9}),
    ):
        assert values(resolve(spec)) == {**values(resolve(small("squashed"))), "resize": "longest", "fill": 9}
        assert resolve(spec).source == "the experiment over tag squashed"


def test_nothing_said_is_assumed_and_told(file: Path) -> None:
    found = resolve(small(file))
    assert values(found) == USUAL
    assert found.identity == {}
    assert found.assumed == "no preprocessing given: OpenAI's mean and std, shortest, bicubic assumed"
    part = resolve(small(file, {"resize": "squash", "mean": [0.5] * 3}))
    assert part.assumed == "not all of the preprocessing given: OpenAI's std, bicubic assumed"
    whole = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize": "shortest", "interpolation": "bicubic"}
    assert resolve(small(file, whole)).assumed == ""
    assert resolve(ModelSpec(name="mini-tiny")).assumed == ""


@pytest.mark.parametrize(
    ("written", "changed"),
    [
        ({}, {}),
        ({"mean": list(OPENAI_MEAN), "std": list(OPENAI_STD)}, {}),
        ({"size": 16, "mode": "RGB", "fill_color": 0, "of_the_future": 3}, {}),
        ({"size": [16, 16], "mean": 0.5, "std": None}, {"mean": [0.5] * 3}),
        ({"resize_mode": "longest", "fill_color": 7}, {"resize": "longest", "fill": 7}),
        ({"resize_mode": "squash", "fill_color": 7}, {"resize": "squash"}),
        ({"interpolation": "bilinear"}, {"interpolation": "bilinear"}),
        ({"interpolation": "random"}, {}),
    ],
)
@pytest.mark.parametrize("link", [False, True])
def test_a_configuration_beside_the_file_is_read_as_open_clip_reads_it(
    tmp_path: Path, file: Path, written: dict[str, Any], changed: dict[str, Any], link: bool
) -> None:
    beside(file, **written)
    path = file
    if link:  # as the cache of the Hugging Face hub has it, the other way round
        (tmp_path / "elsewhere").mkdir()
        path = tmp_path / "elsewhere" / "linked.safetensors"
        path.symlink_to(file)
    found = resolve(small(path))
    assert values(found) == {**USUAL, **changed}
    assert found.identity == changed
    assert (found.source, found.assumed) == (str(file.with_name(CONFIG)), "")
    theirs = open_clip.factory.merge_preprocess_dict(PreprocessCfg(), written) | {"size": 16}
    image = decode(picture(3, (50, 31)))
    pixels = create(small(path)).pixels(
        torch.from_numpy(np.array(fit(image, found.preprocessing.resizing)))[None].permute(0, 3, 1, 2)
    )
    torch.testing.assert_close(
        pixels[0], image_transform_v2(PreprocessCfg(**theirs), is_train=False)(image), atol=1e-5, rtol=0
    )


def test_a_link_in_the_hubs_cache_keeps_its_own_configuration(tmp_path: Path) -> None:
    blob, snapshot = tmp_path / "blobs" / "abc", tmp_path / "snapshots" / "1" / "open_clip_pytorch_model.bin"
    for path in (blob, snapshot):
        path.parent.mkdir(parents=True)
    blob.touch()
    snapshot.symlink_to(blob)
    beside(snapshot, resize_mode="squash")
    assert resolve(small(snapshot)).identity == {"resize": "squash"}


def test_the_experiment_goes_before_the_configuration_and_the_tag_before_both(file: Path) -> None:
    beside(file, resize_mode="squash", interpolation="bilinear")
    assert resolve(small(file, {"resize": "longest"})).identity == {"resize": "longest", "interpolation": "bilinear"}
    assert resolve(small(file, "squashed")).identity == resolve(small("squashed")).identity


def test_an_architecture_from_outside_may_bring_its_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        architectures.ARCHITECTURES, "outside", Architecture("outside", SMALL, {"resize_mode": "squash", "mean": 0.5})
    )
    found = resolve(small(file, name="outside"))
    assert found.identity == {"resize": "squash", "mean": [0.5] * 3}
    assert found.assumed == ""
    beside(file, interpolation="bilinear")
    assert resolve(small(file, name="outside")).identity == {"interpolation": "bilinear"}
    bad = Architecture("outside", {**SMALL, "vision_cfg": {"image_size": [16, 32]}}, {"std": 0})
    monkeypatch.setitem(architectures.ARCHITECTURES, "outside", bad)
    file.with_name(CONFIG).unlink()
    assert [line.partition(";")[0] for line in refused(small(file, name="outside"))] == [
        "model outside: takes images of 16 by 32 pixels",
        *(f"architecture outside: preprocess_cfg.std.{i}: input should be greater than 0, not 0" for i in range(3)),
    ]


# what contradicts or is broken

WRONG = [
    (config_of("ViT-B-16"), "vision_cfg.patch_size 16 (here 32)", "name ViT-B-16"),
    (config_of("ViT-L-14-336"), "embed_dim 768 (here 512)", "name ViT-L-14-336"),
    (config_of(QUICK), "is for QuickGELU, but the model would have GELU", f"name {QUICK}"),
    (config_of("ViT-B-32", quick_gelu=True), "is for QuickGELU, but the model would have GELU", f"name {QUICK}"),
    (
        config_of("ViT-B-32", text_cfg={**SMALL["text_cfg"], "pool_type": "last"}),  # type: ignore[dict-item]
        "text_cfg.pool_type last (here argmax)",
        "name the architecture of the weights",
    ),
]


@pytest.mark.parametrize(("written", "text", "remedy"), WRONG)
def test_a_configuration_of_another_architecture_is_one_line(
    file: Path, written: dict[str, Any], text: str, remedy: str
) -> None:
    if "pool_type" in text:
        written = copy.deepcopy(config_of("ViT-B-32"))
        written["model_cfg"]["text_cfg"]["pool_type"] = "last"
    path = file.with_name(CONFIG)
    path.write_text(json.dumps(written), encoding="utf-8")
    (line,) = refused(small(file, name="ViT-B-32"))
    assert line.startswith(f"model ViT-B-32: {path} is for ")
    assert text in line
    assert line.endswith(f"; {remedy}")


def test_a_configuration_may_spell_out_defaults_and_what_does_not_count(file: Path) -> None:
    written = copy.deepcopy(config_of("ViT-B-32", quick_gelu=False, custom_text=True, init_logit_scale=None))
    written["model_cfg"]["vision_cfg"] |= {
        "head_width": 64,
        "pool_type": "tok",
        "ls_init_value": None,
        "patch_dropout": 0.5,
    }
    written["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "a/b", "pad_id": 0}
    file.with_name(CONFIG).write_text(json.dumps(written), encoding="utf-8")
    assert resolve(small(file, name="ViT-B-32")).identity == {}


BROKEN = [
    ("", "cannot be read as JSON (Expecting value"),
    ("{", "cannot be read as JSON"),
    (b"\xff\xfe{", "cannot be read as JSON"),
    ("[]", "is not as open_clip writes it: model_cfg with vision_cfg and text_cfg, and preprocess_cfg"),
    ("{}", "is not as open_clip writes it"),
    ({"model_cfg": 3}, "is not as open_clip writes it"),
    ({"model_cfg": {"vision_cfg": {}, "text_cfg": 3}}, "is not as open_clip writes it"),
    ({"std": [0.5, 0, 0.5]}, "preprocess_cfg.std.1: input should be greater than 0, not 0; correct it"),
    ({"std": -1}, "preprocess_cfg.std.0: input should be greater than 0, not -1; correct it"),
    ({"mean": [123.7, 0.4, 0.4]}, "preprocess_cfg.mean.0: input should be less than or equal to 1, not 123.7"),
    ({"mean": [0.5, 0.5]}, "preprocess_cfg.mean: 2 values, but there are three channels"),
    ({"mean": "grey"}, "preprocess_cfg.mean: input should be a valid tuple, not 'grey'"),
    ({"mean": [0.5, float("nan"), 0.5]}, "preprocess_cfg.mean.1: input should be a finite number, not nan"),
    (
        {"interpolation": "lanczos"},
        "preprocess_cfg.interpolation: input should be 'bicubic' or 'bilinear', not 'lanczos'",
    ),
    (
        {"resize_mode": "crop"},
        "preprocess_cfg.resize_mode: input should be 'shortest', 'longest' or 'squash', not 'crop'",
    ),
    ({"fill_color": 256}, "preprocess_cfg.fill_color: input should be less than or equal to 255, not 256"),
    ({"mode": "L"}, "preprocess_cfg.mode: L is not supported; RGB is"),
    ({"size": [16, 24]}, "preprocess_cfg.size: input should be a valid integer, not [16, 24]"),
    ({"size": 32}, f"{CONFIG} says size 32, but the architecture takes 16; leave it out"),
]


@pytest.mark.parametrize(("content", "text"), BROKEN, ids=[text[:40] for _, text in BROKEN])
def test_a_broken_configuration_is_told(file: Path, content: Any, text: str) -> None:
    path = file.with_name(CONFIG)
    if isinstance(content, dict) and "model_cfg" not in content:
        content = {**config_of("test-small"), "preprocess_cfg": content}
    raw = json.dumps(content) if isinstance(content, dict) else content
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    line = refused(small(file))[0]
    assert str(path) in line
    assert text in line


def test_all_faults_are_told_at_once(file: Path) -> None:
    beside(file, std=0, interpolation="x")
    assert len(refused(small(file, {"size": 17, "fill": 3}))) == 3 + 1 + 2
    lines = refused(ModelSpec(name="ViT-B-32", weights="openai", preprocess={"tag": "opnai", "size": 17}))
    assert [line.rpartition("; ")[2] for line in lines] == [
        "did you mean 'openai'?",
        "name ViT-B-32-quickgelu",
        "leave it out, or name an architecture of that size",
    ]
    assert refused(ModelSpec(name="mini-tiny", preprocess="openai")) == (
        "model mini-tiny: no tag 'openai', it has none; give mean, std, resize and so on",
    )


# what it does


@pytest.mark.parametrize(
    "preprocess",
    [
        {"mean": [0.5] * 3, "std": [0.25, 0.5, 1]},
        {"resize": "squash", "interpolation": "bilinear"},
        {"resize": "longest", "fill": 128},
        {"interpolation": "bilinear"},
    ],
)
def test_evaluation_shows_the_model_what_open_clips_transform_does(
    preprocess: dict[str, Any], weights: dict[str, Tensor], make_dataset: Callable[..., Dataset]
) -> None:
    clip = create(small(None, preprocess))
    images = [picture(i, (KEPT_SIDE + 3 * i, 40)) for i in range(12)]
    dataset = make_dataset("wide", [], [Row(data, ("text",), i % 3, "") for i, data in enumerate(images)])
    said = open_clip_config(small(None, preprocess))["preprocess_cfg"]
    transform = image_transform_v2(PreprocessCfg(**said), is_train=False)
    module = clip.load(weights).eval()
    with torch.no_grad():
        heads = [module.encode_text(clip.tokenize([f"a {n}.", f"the {n}."]), normalize=True).mean(0) for n in CLASSES]
        inputs = torch.stack([transform(decode(data)) for data in images])
        nearest = (
            module.encode_image(inputs, normalize=True) @ nn.functional.normalize(torch.stack(heads), dim=-1).T
        ).argmax(1)
    hits = sum(int(found) == i % 3 for i, found in enumerate(nearest))
    assert evaluate(clip, [weights], [dataset]) == [{"wide": 100 * hits / 12}]


def test_open_clip_builds_the_same_model_from_what_is_written(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    file, values = tmp_path / "test-small.safetensors", {"interpolation": "bilinear", "std": [0.5] * 3}
    save_file(weights, file)
    spec = small(file, {**values, "resize": "longest", "fill": 9, "quick_gelu": True})
    ours, identity = create(spec), resolve(spec).identity
    (tmp_path / CONFIG).write_text(json.dumps(open_clip_config(spec)), encoding="utf-8")
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    assert activations(theirs) == activations(ours.module) == {"QuickGELU": 4}
    image = decode(picture(1, (50, 31)))
    square = torch.from_numpy(np.array(fit(image, ours.preprocessing.resizing))).permute(2, 0, 1)
    torch.testing.assert_close(ours.pixels(square[None])[0], transform(image), atol=1e-5, rtol=0)
    again = resolve(small(file, {"quick_gelu": True}))
    assert (again.preprocessing, again.identity) == (ours.preprocessing, identity)


def test_the_default_is_open_clips() -> None:
    theirs = PreprocessCfg()
    ours = Preprocessing(resolve(ModelSpec(name="ViT-B-32")).preprocessing.resizing)
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    how = ours.resizing
    assert (how.size, how.mode, how.interpolation, how.fill) == (
        theirs.size,
        theirs.resize_mode,
        theirs.interpolation,
        theirs.fill_color,
    )
