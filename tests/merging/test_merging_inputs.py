"""What users have: checkpoints, shards, wrapped names, tensors of odd kinds; read right, or named for what they are."""

import json
import os
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


def written(content, path):
    torch.save(content, path)
    return path


def wrapped_inside(name):
    """As torch.compile names the tensors of a part that it has wrapped."""
    return name.replace("visual.", "visual._orig_mod.")


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
        "fsdp": checkpoint(model, folder / "fsdp.pt", "_fsdp_wrapped_module."),
        "one in another": written({"model": {"state_dict": model}}, folder / "inner.pt"),
        "deepspeed": written({"module": model, "ds_version": "0.1", "buffer_names": []}, folder / "ds.pt"),
        "compiled parts": written({wrapped_inside(name): value for name, value in model.items()}, folder / "parts.pt"),
        "index": index,
        "folder": index.parent,
        "torch shards": sharded(model, folder / "bin", "bin"),
    }


FORMS = (
    "state dict",
    "old format",
    "training checkpoint",
    "compiled",
    "trainer",
    "fsdp",
    "one in another",
    "deepspeed",
    "compiled parts",
    "index",
    "folder",
    "torch shards",
)
PREFIXES = {
    "training checkpoint": "module.",
    "compiled": "module._orig_mod.",
    "trainer": "model.",
    "fsdp": "_fsdp_wrapped_module.",
}


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
    note = f"the prefix '{PREFIXES[form]}' of all names" if form in PREFIXES else "_orig_mod. within its names"
    noted = form in PREFIXES or form == "compiled parts"
    assert said == 2 * [f"{model}: {note} is left out" for model in mixed[:2] if noted]


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


def one_fault(tmp_path, expert):
    save_file(toy(1), tmp_path / "base")
    (fault,) = merge_faults(tmp_path / "base", [expert], tmp_path / "o", "average")
    return fault.replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("form", ["loss beside", "inside twice"])
def test_a_model_that_is_a_part_of_what_was_saved_is_one_line(tmp_path, form):
    inner = {f"net.{name}": value for name, value in toy(1).items()}
    others = {"loss.weight": torch.ones(2)} if form == "loss beside" else {f"mean.{n}": v for n, v in toy(1).items()}
    fault = one_fault(tmp_path, written({**inner, **others}, tmp_path / "e.pt"))
    lead = "net." if form == "loss beside" else "mean."
    assert fault.startswith(f"e.pt: its names begin with '{lead}', and none of the base does; ")


@pytest.mark.parametrize("average", ["state_dict_ema", "ema"])
def test_other_weights_of_a_checkpoint_are_said(tmp_path, average):
    save_file(toy(1), tmp_path / "base")
    path = checkpoint(toy(1), tmp_path / "e.pt", **{average: toy(2)})
    said = []
    merge_files(tmp_path / "base", [path], tmp_path / "o", "average", say=said.append)
    assert said == [f"{path}: holds {average} beside state_dict, which is read; save what you want of them alone"]
    assert near(load_file(tmp_path / "o"), toy(1), 0)


HEADERS = {
    "a place before the data": ({"data_offsets": [-4, 4]}, "its tensors overlap, or leave gaps"),
    "a gap": ({"data_offsets": [4, 12]}, "its tensors overlap, or leave gaps"),
    "sizes below 0": ({"shape": [-1, -2]}, "a has a size or a place that is none"),
    "sizes that are no integers": ({"shape": [0.5, 4]}, "a has a size or a place that is none"),
    "places that are no integers": ({"data_offsets": [0.0, 8.0]}, "a has a size or a place that is none"),
    "too many bytes": (None, "3 bytes follow its last tensor"),
    "metadata that are none": ({"__metadata__": 5}, "its __metadata__ is no mapping of names to texts"),
    "nesting": (b'{"a":' + b"[" * 100_000, "maximum recursion depth exceeded"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_that_lies_is_refused(tmp_path, kind):
    change, told = HEADERS[kind]
    specs = {name: {"dtype": "F32", "shape": [2], "data_offsets": [8 * i, 8 * i + 8]} for i, name in enumerate("ab")}
    data = bytes(16)
    if isinstance(change, dict) and "__metadata__" in change:
        specs |= change
    elif isinstance(change, dict):
        specs["a"] |= change
    elif change is None:
        data += bytes(3)
    header = change if isinstance(change, bytes) else json.dumps(specs).encode()
    (tmp_path / "e").write_bytes(len(header).to_bytes(8, "little") + header + data)
    fault = one_fault(tmp_path, tmp_path / "e")
    assert fault.startswith(f"e: not a whole safetensors file ({told}")


INDICES = {
    "": "'' is not beside it",
    ".": "'.' is not beside it",
    "..": "'..' is not beside it",
    "/model.safetensors": "'/model.safetensors' is not beside it",
    "a\0b": "'a\\x00b' is not beside it",
    "\ud800": "'\\ud800' is not beside it",
    "e.index.json": "neither a safetensors file nor a torch checkpoint",
}


@pytest.mark.parametrize("shard", INDICES)
def test_an_index_names_files_beside_it(tmp_path, shard):
    save_file(toy(1), tmp_path / "model.safetensors")  # which nobody has asked for
    (tmp_path / "set").mkdir()
    index = tmp_path / "set" / "e.index.json"
    index.write_text(json.dumps({"weight_map": {"w": shard}}))
    assert one_fault(tmp_path, index).startswith(f"set/e.index.json: {INDICES[shard]}; ")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"weight_map": 1}', b"[" * 100_000])
def test_what_is_no_index_is_said(tmp_path, content):
    (tmp_path / "e.index.json").write_bytes(content)
    fault = one_fault(tmp_path, tmp_path / "e.index.json")
    assert fault == "e.index.json: no index of a sharded model (it has no weight_map); give one"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_an_index_may_be_in_any_encoding_of_json(tmp_path, encoding):
    index = sharded(toy(1), tmp_path / "set")
    index.write_bytes(index.read_text().encode(encoding))
    assert same(merge(toy(1), [index], "average"), toy(1))


def test_a_shard_holds_what_the_index_lists_of_it(tmp_path):
    index = sharded(toy(1), tmp_path / "set")
    shard = tmp_path / "set" / "model-00002-of-00002.safetensors"
    save_file({**load_file(shard), "more": torch.ones(1)}, shard)
    assert one_fault(tmp_path, index).endswith(f"does not list more of {shard.name}; give all files of one set")


@pytest.mark.parametrize("place", ["expert", "shard", "output"])
def test_what_is_no_plain_file_is_neither_read_nor_replaced(tmp_path, place):
    index = sharded(toy(1), tmp_path / "set")
    pipe = tmp_path / "set" / "model-00002-of-00002.safetensors"
    pipe.unlink()
    os.mkfifo(pipe)  # whoever reads it waits for ever
    save_file(toy(1), tmp_path / "base")
    given = {"expert": pipe, "shard": index, "output": tmp_path / "base"}[place]
    output = pipe if place == "output" else tmp_path / "o"
    (fault,) = merge_faults(tmp_path / "base", [given], output, "average")
    assert fault.startswith(f"{pipe}: is no plain file; ")


def test_an_output_may_be_a_link_that_leads_in_a_circle(tmp_path):
    save_file(toy(1), tmp_path / "base")
    (tmp_path / "o").symlink_to("o")
    merge_files(tmp_path / "base", [tmp_path / "base"], tmp_path / "o", "average")
    assert near(load_file(tmp_path / "o"), toy(1), 0)
