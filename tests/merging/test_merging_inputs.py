"""What users have: checkpoints, shards, wrapped names, tensors of odd kinds; read right, or named for what they are."""

import json
import pickle

import pytest
import torch
from merging_toys import near, same, toy, world
from safetensors.torch import load_file, save_file

from time_ray.merging import MergeError, fold, merge, merge_faults, merge_files, pair


def sharded(model, folder, ending="safetensors"):
    """The model in two files with an index; gives the index."""
    folder.mkdir()
    stem = "model" if ending == "safetensors" else "pytorch_model"
    places = {name: f"{stem}-{i % 2 + 1:05d}-of-00002.{ending}" for i, name in enumerate(model)}
    for file in set(places.values()):
        part = {name: model[name] for name, place in places.items() if place == file}
        save_file(part, folder / file) if ending == "safetensors" else torch.save(part, folder / file)
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def checkpoint(model, path, prefix="", **more):
    """What open_clip's training loop saves."""
    state = {prefix + name: value for name, value in model.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"state": {}}, **more}, path)
    return path


def in_every_form(model, folder):
    """The same model, as users have it."""
    folder.mkdir()
    save_file(model, folder / "m.safetensors")
    torch.save(model, folder / "m.pt")
    torch.save(model, folder / "old.bin", _use_new_zipfile_serialization=False)
    index = sharded(model, folder / "shards")
    return {
        "safetensors": folder / "m.safetensors",
        "state dict": folder / "m.pt",
        "old format": folder / "old.bin",
        "training checkpoint": checkpoint(model, folder / "epoch_3.pt", "module."),
        "compiled": checkpoint(model, folder / "compiled.pt", "module._orig_mod."),
        "trainer": checkpoint(model, folder / "trainer.pt", "model."),
        "index": index,
        "folder": index.parent,
        "torch shards": sharded(model, folder / "bin", "bin"),
    }


FORMS = ("state dict", "old format", "training checkpoint", "compiled", "trainer", "index", "folder", "torch shards")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_model_gives_the_same_merge(tmp_path, form):
    models = [in_every_form(model, tmp_path / str(number)) for number, model in enumerate(toys())]
    wanted = merge(toys()[0], toys()[1:], "ties")
    mixed = [models[0][form], models[1][form], models[2]["safetensors"]]
    assert near(merge(mixed[0], mixed[1:], "ties"), wanted, 0)
    said = []
    for _ in range(2):  # the second time with what is remembered beside each
        merge_files(mixed[0], mixed[1:], tmp_path / "o", "ties", say=said.append)
        assert near(load_file(tmp_path / "o"), wanted, 0)
    prefix = {"training checkpoint": "module.", "compiled": "module._orig_mod.", "trainer": "model."}.get(form)
    notes = [f"{model}: the prefix '{prefix}' of all names is left out" for model in mixed[:2]] if prefix else []
    assert said == 2 * notes


def toys():
    base, experts = world(2)
    return [base, *experts]


def test_an_expert_is_named_as_its_base(tmp_path):
    base, (expert, _) = world(2)
    inner = {f"model.{name}": value for name, value in base.items() if name != "logit_scale"}
    whole = {**inner, "lm_head.weight": torch.zeros(2, 2)}
    assert same(merge(whole, [whole], "average"), whole)  # not all names have it: no wrapper
    layers = {f"model.layers.{i}.w": torch.full((3,), float(i)) for i in range(3)}
    assert list(merge(layers, [layers], "average")) == list(layers)  # both have it, and nothing looks like CLIP
    wrapped = {f"module.{name}": value for name, value in expert.items()}
    assert same(pair(base, base, wrapped, "average"), pair(base, base, expert, "average"))
    running = fold("average", wrapped)
    running.add({f"model._orig_mod.{name}": value for name, value in expert.items()})
    assert same(running.result(), expert)
    averaged = {"n_averaged": torch.tensor(3), **wrapped}  # as torch's AveragedModel has it
    assert same(merge(base, [averaged], "average"), expert)


@pytest.mark.parametrize("whose", ["base", "expert 1"])
def test_an_unknown_prefix_is_one_line(whose):
    base, (expert, _) = world(2)
    odd = {f"net.student.{name}": value for name, value in (base if whose == "base" else expert).items()}
    with pytest.raises(MergeError) as caught:
        merge(*((odd, [expert]) if whose == "base" else (base, [odd])), "average")
    (fault,) = caught.value.faults
    other = "expert 1" if whose == "base" else "the base"
    assert fault.startswith(f"{whose}: all its names begin with 'net.student.', and none of {other} does; ")


def test_every_tensor_of_another_architecture_is_named(tmp_path):
    many = {f"block.{i}.weight": torch.zeros(2) for i in range(148)}
    others = {f"layer.{i}.weight": torch.zeros(2) for i in range(5)}
    with pytest.raises(MergeError) as caught:
        merge(many, [others, {**many, "block.3.weight": torch.zeros(3)}], "average")
    assert len(caught.value.faults) == 148 + 5 + 1
    assert "block.3.weight is float32[3]" in caught.value.faults[-1]
    save_file(many, tmp_path / "base")
    save_file(others, tmp_path / "e")
    assert len(merge_faults(tmp_path / "base", [tmp_path / "e"], tmp_path / "o", "average")) == 148 + 5


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (torch.zeros(4, device="meta"), "w is on the meta device, without values; load the weights first"),
        (torch.zeros(4).to_sparse(), "w is sparse (sparse_coo); give tensor.to_dense()"),
        (
            torch.zeros(4, dtype=torch.float8_e4m3fn),
            "w is float8_e4m3fn[4]; convert it to float32, float16 or bfloat16",
        ),
        (torch.zeros(4, dtype=torch.complex64), "w is complex64[4]; convert it to float32, float16 or bfloat16"),
        (torch.zeros(4, dtype=torch.uint16), "w is uint16[4] and float32[4] in the base; make them the same"),
        ([0.0], "w is no tensor but list; give the model's state_dict()"),
    ],
)
def test_odd_tensors_are_named_for_what_they_are(tmp_path, value, fault):
    base = {"v": torch.zeros(1), "w": torch.ones(4)}
    with pytest.raises(MergeError) as caught:
        merge(base, [{"v": torch.zeros(1), "w": value}], "average")
    assert caught.value.faults == (f"expert 1: {fault}",)
    if isinstance(value, torch.Tensor) and not value.is_meta and value.layout == torch.strided:
        save_file(base, tmp_path / "base")
        for save in (save_file, torch.save):
            save({"v": torch.zeros(1), "w": value}, tmp_path / "e")
            assert merge_faults(tmp_path / "base", [tmp_path / "e"], tmp_path / "o", "average") == [
                f"{tmp_path / 'e'}: {fault}"
            ]


def test_integers_of_every_width_are_carried(tmp_path):
    model = {"w": torch.ones(4), "seen": torch.tensor(3, dtype=torch.uint32), "ids": torch.arange(4).to(torch.uint16)}
    save_file(model, tmp_path / "m")
    assert same(dict(sorted(merge(tmp_path / "m", [tmp_path / "m"], "average").items(), reverse=True)), model)
    assert same(merge(model, [{**model, "ids": torch.arange(4)}], "average"), model)


def test_a_kind_of_number_that_torch_lacks_is_named(tmp_path):
    save_file({"w": torch.zeros(4, dtype=torch.int8)}, tmp_path / "m")
    raw = (tmp_path / "m").read_bytes()
    (tmp_path / "m").write_bytes(raw.replace(b'"I8"', b'"F4"'))
    with pytest.raises(MergeError, match=r"m: w is F4\[4\]; convert it to float32"):
        merge(tmp_path / "m", [tmp_path / "m"], "average")


class Payload:
    """What must not be run."""

    def __reduce__(self):
        return (print, ("this code was run",))


def test_pickled_code_is_never_run(tmp_path, capsys):
    (tmp_path / "e.pt").write_bytes(pickle.dumps({"w": Payload()}))
    torch.save({"state_dict": {"w": torch.ones(2)}, "args": Payload()}, tmp_path / "f.pt")
    for name in ("e.pt", "f.pt"):
        with pytest.raises(MergeError, match=f"{name}: "):
            merge({"w": torch.ones(2)}, [tmp_path / name], "average")
    assert capsys.readouterr().out == ""


def test_what_is_no_model_is_told_as_such(tmp_path):
    base = tmp_path / "base"
    save_file(toy(0), base)
    torch.save([1, 2], tmp_path / "list.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "jit.pt")
    (tmp_path / "notes.txt").write_text("a model, once")
    index = sharded(toy(1), tmp_path / "shards")
    (tmp_path / "shards" / "model-00002-of-00002.safetensors").unlink()
    (tmp_path / "out.index.json").write_text(json.dumps({"weight_map": {"w": "../base"}}))
    (tmp_path / "empty").mkdir()
    given = [
        tmp_path / "list.pt",
        tmp_path / "jit.pt",
        tmp_path / "notes.txt",
        index,
        tmp_path / "out.index.json",
        tmp_path / "empty",
        tmp_path / "gone",
    ]
    faults = merge_faults(base, given, tmp_path / "o", "average")
    assert [fault.split("; ")[0].removeprefix(f"{tmp_path}/") for fault in faults] == [
        "list.pt: holds no state dict (names to tensors)",
        "jit.pt: a TorchScript archive, which holds code",
        "notes.txt: neither a safetensors file nor a torch checkpoint",
        "shards/model-00002-of-00002.safetensors: cannot be read (No such file or directory)",
        "out.index.json: '../base' is not beside it",
        "empty: a folder without model.safetensors.index.json or any other model",
        "gone: cannot be read (No such file or directory)",
    ]


def test_a_file_of_a_set_is_never_overwritten(tmp_path):
    index = sharded(toy(1), tmp_path / "shards")
    shard = tmp_path / "shards" / "model-00001-of-00002.safetensors"
    assert "is one of the inputs" in merge_faults(index, [index], shard, "average")[0]


def test_dtypes_that_differ_are_said_once(tmp_path):
    base, experts = world(2)
    half = [{k: v.bfloat16() if v.is_floating_point() else v for k, v in one.items()} for one in experts]
    for model, name in zip((base, *half), ("base", "e1", "e2"), strict=True):
        save_file(model, tmp_path / name)
    said = []
    merge_files(tmp_path / "base", [tmp_path / "e1", tmp_path / "e2"], tmp_path / "o", "average", say=said.append)
    assert said == [
        "experts have other dtypes than the base: merged in float32, written in the base's unless dtype is given"
    ]
