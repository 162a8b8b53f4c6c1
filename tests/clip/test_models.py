import itertools
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from time_ray.clip import models
from time_ray.clip.models import Clip, base_weights, create, num_bytes
from time_ray.clip.weights import weights_digest
from time_ray.core.errors import UserError
from time_ray.core.model import ModelSpec


def test_an_unknown_architecture_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'ViT-B-32'"):
        create(ModelSpec(name="ViT-B32"))


def test_a_missing_package_is_told(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch):
    def fail(_: str) -> None:
        msg = "No module named 'transformers'"
        raise ModuleNotFoundError(msg)

    monkeypatch.setattr(open_clip, "get_tokenizer", fail)
    with pytest.raises(UserError, match=r"test-small: needs a package that is not installed \(No module named"):
        create(spec)


@pytest.mark.parametrize("kind", ["safetensors", "torch", "checkpoint"])
def test_a_weights_file_is_read_into_float32(spec: ModelSpec, weights: dict[str, Tensor], tmp_path: Path, kind: str):
    half = {name: tensor.half() for name, tensor in weights.items()}
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_file(half, path)
    else:
        wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in half.items()}}
        torch.save(half if kind == "torch" else wrapped, path)
    found = base_weights(ModelSpec(name=spec.name, weights=str(path)))
    assert list(found) == list(weights)
    assert all(torch.equal(found[name], half[name].float()) for name in weights)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}


WRAPPERS = ["module.", "_orig_mod.", "model.", "_fsdp_wrapped_module."]
WRAPPED = [
    *WRAPPERS,
    *("".join(pair) for pair in itertools.permutations(WRAPPERS[:3], 2)),
    *("".join(three) for three in itertools.permutations(WRAPPERS[:3])),
    "module.module.",
]


@pytest.mark.parametrize("prefix", WRAPPED)
def test_wrappers_of_the_model_are_taken_off(
    spec: ModelSpec, weights: dict[str, Tensor], tmp_path: Path, prefix: str
) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": {"state_dict": {f"{prefix}{name}": tensor for name, tensor in weights.items()}}}, path)
    found = base_weights(ModelSpec(name=spec.name, weights=str(path)))
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_a_compiled_tower_has_its_wrapper_inside(spec: ModelSpec, weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({name.replace("visual.", "visual._orig_mod."): tensor for name, tensor in weights.items()}, path)
    assert list(base_weights(ModelSpec(name=spec.name, weights=str(path)))) == list(weights)


def refusal(spec: ModelSpec, tensors: dict[str, Tensor], path: Path) -> tuple[str, ...]:
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path)
    with pytest.raises(UserError) as refused:
        base_weights(ModelSpec(name=spec.name, weights=str(path)))
    return refused.value.faults


@pytest.mark.parametrize("prefixes", [["net.clip."], ["student.", "teacher."]])
def test_a_model_inside_another_is_one_line(
    spec: ModelSpec, weights: dict[str, Tensor], tmp_path: Path, prefixes: list[str]
) -> None:
    inside = {f"{prefix}{name}": tensor for prefix in prefixes for name, tensor in weights.items()}
    (line,) = refusal(spec, inside, tmp_path / "w.safetensors")
    where = " and ".join(f"'{prefix}'" for prefix in prefixes)
    assert line.endswith(f": names of {spec.name} begin with {where} here; save the state_dict() of that part alone")


def test_the_same_tensor_twice_is_no_choice(spec: ModelSpec, weights: dict[str, Tensor], tmp_path: Path) -> None:
    twice = weights | {f"module.{name}": tensor for name, tensor in weights.items()}
    (line,) = refusal(spec, twice, tmp_path / "w.safetensors")
    assert "with and without a wrapper's prefix" in line


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), torch.float32), (float("-inf"), torch.bfloat16)])
def test_a_value_that_is_no_number_is_found_when_weights_are_read(
    spec: ModelSpec, weights: dict[str, Tensor], tmp_path: Path, value: float, dtype: torch.dtype
) -> None:
    name = "visual.proj"
    broken = {**weights, name: weights[name].to(dtype).clone()}
    broken[name][0, 1] = value
    (line,) = refusal(spec, broken, tmp_path / "w.safetensors")
    assert f": {name}: 1 of {broken[name].numel()} values are NaN or Inf" in line


KINDS = {
    "sparse": (lambda t: t.to_sparse(), "is sparse (sparse_coo); give tensor.to_dense()"),
    "meta": (lambda t: t.to("meta"), "is on the meta device, without values; load the weights first"),
    "fp8": (lambda t: t.to(torch.float8_e5m2), "is float8_e5m2[32, 32]; convert it to float32, float16 or bfloat16"),
    "complex": (lambda t: t.to(torch.complex64), "is complex64[32, 32]; convert it to float32, float16 or bfloat16"),
    "integers": (lambda t: t.long(), "int64, but test-small has float32; convert it"),
    "U16": (lambda t: t.abs().to(torch.uint16), "uint16, but test-small has float32; convert it"),
    "truth values": (lambda t: t > 0, "bool, but test-small has float32; convert it"),
    "a number": (lambda _: 5, "is no tensor but int; give the model's state_dict()"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_of_another_kind_is_named_for_what_it_is(
    spec: ModelSpec, weights: dict[str, Tensor], tmp_path: Path, kind: str
) -> None:
    make, told = KINDS[kind]
    torch.save({**weights, "visual.proj": make(weights["visual.proj"])}, tmp_path / "w.pt")
    with pytest.raises(UserError) as refused:
        base_weights(ModelSpec(name=spec.name, weights=str(tmp_path / "w.pt")))
    (line,) = refused.value.faults
    assert line.startswith(f"{tmp_path / 'w.pt'}: visual.proj")
    assert line.endswith(told)


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("trapped"),)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_code_is_refused_in_one_line(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, legacy: bool
):
    monkeypatch.chdir(tmp_path)
    if legacy:
        Path("weights.pt").write_bytes(pickle.dumps({"w": Trap()}))
    else:
        torch.save({"w": Trap()}, "weights.pt")
    with pytest.raises(UserError) as caught:
        base_weights(ModelSpec(name=spec.name, weights="weights.pt"))
    assert len(caught.value.faults) == 1
    assert "weights.pt: holds more than tensors" in caught.value.faults[0]
    assert not Path("trapped").exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04 broken"])
def test_an_unreadable_file_is_named(spec: ModelSpec, tmp_path: Path, content: bytes):
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        base_weights(ModelSpec(name=spec.name, weights=str(path)))


def test_every_tensor_of_another_architecture_is_listed(spec: ModelSpec, weights: dict[str, Tensor], tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    other = dict(weights)
    del other["visual.proj"]
    other["ln_final.weight"] = torch.zeros(7)
    other["extra"] = torch.zeros(1)
    save_file(other, path)
    with pytest.raises(UserError) as caught:
        base_weights(ModelSpec(name=spec.name, weights=str(path)))
    assert caught.value.faults == (
        f"{path}: visual.proj: missing; test-small has [32, 32]",
        f"{path}: ln_final.weight: shape [7], but test-small has [32]",
        f"{path}: extra: test-small has no such tensor",
    )


def test_weights_must_come_from_somewhere(spec: ModelSpec):
    with pytest.raises(UserError, match="no weights are shipped"):
        base_weights(spec)
    with pytest.raises(UserError, match=r"weights nowhere\.pt: no such file, and no tag of this model; its tags: none"):
        base_weights(ModelSpec(name=spec.name, weights="nowhere.pt"))


def test_a_mistyped_tag_gets_a_suggestion_and_no_network(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(open_clip, "download_pretrained", None)
    with pytest.raises(UserError) as caught:
        weights_digest(ModelSpec(name="ViT-B-16", weights="laion2b_s34b_b88"))
    (fault,) = caught.value.faults
    assert fault.endswith("no such file, and no tag of this model; did you mean 'laion2b_s34b_b88k'?")
    assert weights_digest(ModelSpec(name="ViT-B-16", weights="laion2b_s34b_b88k"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ViT-B-16-SigLIP", "SigLIP's sigmoid loss is not supported"),
        ("coca_ViT-B-32", "CoCa's caption decoder is not supported"),
        ("roberta-ViT-B-32", "text towers of the Hugging Face hub are not supported"),
    ],
)
def test_what_is_no_plain_clip_is_refused_in_a_line(name: str, reason: str):
    for use in (create, weights_digest, num_bytes):
        with pytest.raises(UserError) as caught:
            use(ModelSpec(name=name, weights="openai"))
        (fault,) = caught.value.faults
        assert fault.startswith(f"model {name}: {reason}; choose")


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["ViT-S-16", "ViT-B-32"])
def test_local_weights_of_a_full_size_load(tmp_path: Path, name: str):
    module = open_clip.create_model(name, load_weights=False, pretrained_text=False)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in module.state_dict().items()}}, tmp_path / "w.pt")
    for file in ("w.safetensors", "w.pt"):
        found = base_weights(ModelSpec(name=name, weights=str(tmp_path / file)))
        assert all(torch.equal(found[k], v) for k, v in module.state_dict().items())


def test_a_tag_without_a_network_is_one_line(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch):
    def fail(_: object) -> str:
        msg = "no route to host\nmore of it"
        raise OSError(msg)

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, spec.name, {"tag": {}})
    with pytest.raises(UserError) as caught:
        base_weights(ModelSpec(name=spec.name, weights="tag"))
    (fault,) = caught.value.faults
    assert fault.startswith("model test-small: weights tag: cannot be downloaded here (no route to host)")


def test_a_tag_is_read_through_open_clip(
    spec: ModelSpec, weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save_file(weights, tmp_path / "w.safetensors")
    tag = {"file": str(tmp_path / "w.safetensors"), "mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, spec.name, {"tag": tag})
    tagged = ModelSpec(name=spec.name, weights="tag")
    assert torch.equal(base_weights(tagged)["visual.proj"], weights["visual.proj"])
    assert create(tagged).preprocessing.mean == (0.1, 0.2, 0.3)


def test_the_digest_follows_the_bytes(spec: ModelSpec, weights: dict[str, Tensor], tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    here = ModelSpec(name=spec.name, weights=str(path))
    save_file(weights, path)
    before = weights_digest(here)
    assert weights_digest(here) == before
    save_file(weights | {"visual.proj": torch.zeros(32, 32)}, path)
    assert weights_digest(here) != before
    assert weights_digest(ModelSpec(name="RN50", weights="yfcc15m")) != weights_digest(
        ModelSpec(name="RN50", weights="cc12m")
    )


def test_tokens_and_pixels_are_open_clips(spec: ModelSpec, clip: Clip):
    texts = ["a cat", "an owl that is far too long for the context of this model, which holds sixteen", "a cat"]
    assert torch.equal(clip.tokenize(texts), open_clip.get_tokenizer(spec.name)(texts))
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    mean, std = (torch.tensor(stat).view(3, 1, 1) for stat in (clip.preprocessing.mean, clip.preprocessing.std))
    torch.testing.assert_close(clip.pixels(images), (images / 255 - mean) / std)


def test_models_beside_each_other_hold_their_own_weights(spec: ModelSpec, weights: dict[str, Tensor]):
    working = create(spec)
    before = {name: tensor.clone() for name, tensor in working.module.state_dict().items()}
    other = {name: tensor + 1 for name, tensor in weights.items()}
    first, second = working.holding(weights), working.holding(other)
    for held, given in ((first, weights), (second, other), (working, before)):
        state = held.module.state_dict()
        assert list(state) == list(before)
        assert all(torch.equal(state[name], given[name]) for name in state)
    assert first.module.visual.proj.data_ptr() == weights["visual.proj"].data_ptr()
    assert not first.module.training
    odd = torch.cat([torch.zeros(1), weights["visual.proj"].flatten()])[1:].view_as(weights["visual.proj"])
    third = working.holding({**weights, "visual.proj": odd})
    assert odd.data_ptr() % 64  # a matrix product may round otherwise from there, so this one is copied
    assert third.module.visual.proj.data_ptr() % 64 == 0
    assert torch.equal(third.module.visual.proj, odd)
    with pytest.raises(RuntimeError, match="Missing key"):
        working.holding({name: tensor for name, tensor in weights.items() if name != "visual.proj"})


def test_open_clips_warning_is_silenced_for_its_own_thread_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Two sweeps in one process may build models at once; what one silences, the other must not keep silent."""
    one, other = models._open_clip_quiet(), models._open_clip_quiet()
    one.__enter__()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(other.__enter__).result()
        logging.warning("from here")
        one.__exit__(None, None, None)
        thread.submit(logging.warning, "from there").result()
        thread.submit(other.__exit__, None, None, None).result()
        thread.submit(logging.warning, "later").result()
    logging.warning("at last")
    assert caplog.messages == ["later", "at last"]
    assert not logging.root.manager.disable
