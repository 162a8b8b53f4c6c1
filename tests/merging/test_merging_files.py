"""File to file: bounded, checked before spent, whole or absent."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from merging_toys import bits, moved, near, same, toy, world
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from time_ray.merging import MergeError, fold, merge, merge_faults, merge_files, models
from time_ray.merging import output as outputs
from time_ray.merging.streaming import RECIPE_KEY


@pytest.fixture
def files(tmp_path):
    base, experts = world(3)
    paths = [tmp_path / f"{name}.safetensors" for name in ("base", "e1", "e2", "e3")]
    for model, path in zip([base, *experts], paths, strict=True):
        save_file(model, path, {"format": "pt"})
    return paths


def recipe_of(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[RECIPE_KEY])


def left_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".merging"))


def test_the_output_says_how_it_was_made(files, tmp_path):
    returned = merge_files(files[0], files[1:], tmp_path / "o", "dare", seed=3, ids=["a", "b", "c"])
    recipe = recipe_of(tmp_path / "o")
    assert recipe == returned
    assert recipe["parameters"] == {"drop": 0.7, "scaling": None, "seed": 3}
    assert recipe["base"] == {"file": "base.safetensors", "sha256": hashlib.sha256(files[0].read_bytes()).hexdigest()}
    assert [expert["id"] for expert in recipe["experts"]] == ["a", "b", "c"]
    assert recipe["versions"]["dare"] == 1
    with safe_open(tmp_path / "o", "pt") as file:
        assert file.metadata()["format"] == "pt"


@pytest.mark.parametrize("technique", ["average", "ties", "breadcrumbs_ties"])
def test_bytes_do_not_depend_on_how_the_work_is_cut_or_what_is_remembered(files, tmp_path, technique):
    seen = set()
    for number, how in enumerate(
        [{"sidecars": False}, {"chunk": 3}, {"chunk": 64, "threads": 4}, {"sidecars": False, "threads": 2}]
    ):
        merge_files(files[0], files[1:], tmp_path / f"o{number}", technique, **how)
        seen.add((tmp_path / f"o{number}").read_bytes())
    assert len(seen) == 1


def test_progress_ends_where_it_said_it_would(files, tmp_path):
    for technique, sidecars in (("ties", True), ("ties", True), ("average", False), ("opcm", True)):
        calls: list[tuple[int, int]] = []
        progress = partial(lambda seen, *now: seen.append(now), calls)
        merge_files(files[0], files[1:], tmp_path / "o", technique, sidecars=sidecars, progress=progress)
        assert [done for done, _ in calls] == sorted(done for done, _ in calls)
        assert calls[-1][0] == calls[-1][1]


def test_paths_and_tensors_mix_in_memory(files):
    base, experts = world(3)
    mixed = merge(files[0], [files[1], experts[1], str(files[3])], "ties")
    assert near(mixed, merge(base, experts, "ties"))


def test_every_fault_of_every_file_is_listed_before_any_tensor_is_read(files, tmp_path):
    _, experts = world(2)
    odd = {**experts[0], "visual.proj": torch.zeros(5, 4), "token_embedding.weight": torch.zeros(9, 4).long()}
    odd["extra"] = odd.pop("empty")
    save_file(odd, files[1])
    save_file({**experts[1], "position_ids": torch.arange(4) + 1}, files[2])
    with pytest.raises(MergeError) as caught:
        merge_files(files[0], files[1:], tmp_path / "missing" / "o", "average", weights=[1, 2])
    assert sorted(caught.value.faults) == sorted(
        [
            "average: 2 weights for 3 experts; give one weight per expert, oldest first",
            f"{files[1]}: extra float32[0, 3] is not in the base; give an expert of the base's architecture",
            f"{files[1]}: has no empty float32[0, 3]; give an expert of the base's architecture",
            f"{files[1]}: token_embedding.weight is int64[9, 4] and float32[9, 4] in the base; make them the same",
            f"{files[1]}: visual.proj is float32[5, 4] and float32[4, 5] in the base; make them the same",
            f"{files[2]}: position_ids int64[4] differs from the base; make integers equal",
            f"{tmp_path / 'missing' / 'o'}: its folder does not exist; create {tmp_path / 'missing'}",
        ]
    )


def test_files_that_are_no_models_are_all_named(files, tmp_path):
    files[1].write_bytes(b"not a model at all")
    files[2].write_bytes(files[2].read_bytes()[:-10])
    files[3].unlink()
    with pytest.raises(MergeError) as caught:
        merge_files(files[0], files[1:], tmp_path / "o", "average")
    assert [str(path) in fault for path, fault in zip(files[1:], caught.value.faults, strict=True)] == [True] * 3
    assert "10 bytes are missing" in caught.value.faults[1]


def test_an_input_is_never_overwritten(files):
    with pytest.raises(MergeError, match="is one of the inputs"):
        merge_files(files[0], files[1:], files[1], "average")


def test_disk_space_is_checked(files, tmp_path, monkeypatch):
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(MergeError, match=r"needs 0\.00 GB and 0\.00 GB are free"):
        merge_files(files[0], files[1:], tmp_path / "o", "average")


@pytest.mark.parametrize("technique", ["average", "ties", "slerp"])
@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_no_number_is_named_and_leaves_nothing(files, tmp_path, technique, threads):
    for seed, (path, name, value) in enumerate(
        [(files[1], "visual.proj", float("nan")), (files[3], "logit_scale", float("inf"))], 1
    ):
        broken = moved(toy(0), seed)
        broken[name].view(-1)[-1] = value
        save_file(broken, path)
    before = left_in(tmp_path)
    with pytest.raises(MergeError) as caught:
        merge_files(files[0], files[1:], tmp_path / "o", technique, threads=threads)
    assert [fault.split(";")[0] for fault in caught.value.faults] == [
        f"{files[1]}: visual.proj holds NaN or Inf",
        f"{files[3]}: logit_scale holds NaN or Inf",
    ]
    assert left_in(tmp_path) == before


def test_large_numbers_are_no_infinities():
    big = {"w": torch.full((1000,), 3e38)}
    assert torch.equal(merge(big, [big], "average")["w"], big["w"])


@pytest.mark.parametrize("technique", ["average", "task_arithmetic", "ties", "opcm"])
def test_what_overflows_is_named_and_leaves_nothing(tmp_path, technique):
    base = {"a.weight": torch.zeros(3, 3), "b": torch.full((4,), 6e4), "c": torch.full((4,), 5.0)}
    expert = {"a.weight": torch.eye(3), "b": torch.full((4,), 9e4), "c": torch.full((4,), 6.0)}
    for name, model in (("base", base), ("e", expert)):
        save_file(model, tmp_path / name)
    fault = r"^b: the merged values are too large for float16; give a smaller scaling, or another dtype$"
    before = left_in(tmp_path)
    with pytest.raises(MergeError, match=fault):
        merge_files(tmp_path / "base", [tmp_path / "e"], tmp_path / "o", technique, dtype="float16", sidecars=False)
    assert left_in(tmp_path) == before
    with pytest.raises(MergeError, match=fault):
        merge(base, [expert], technique, dtype="float16")
    running = fold(technique, base, dtype=torch.float16)
    running.add(expert)
    with pytest.raises(MergeError, match=fault):
        running.result()


@pytest.mark.parametrize("technique", ["average", "ties", "slerp", "dare"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes_mix_in_float32_and_end_as_the_base(tmp_path, technique, dtype):
    base, experts = world(2)
    other = {name: value.to(dtype) if value.is_floating_point() else value for name, value in experts[0].items()}
    alike = {name: value.float() if value.is_floating_point() else value for name, value in other.items()}
    wanted = merge(base, [alike, experts[1]], technique)
    assert same(merge(base, [other, experts[1]], technique), wanted)
    paths = [tmp_path / name for name in ("base", "e1", "e2")]
    for model, path in zip((base, other, experts[1]), paths, strict=True):
        save_file(model, path)
    merge_files(paths[0], paths[1:], tmp_path / "o", technique)
    assert near(load_file(tmp_path / "o"), wanted, 1e-6 if technique == "slerp" else 0)
    merge_files(paths[0], paths[1:], tmp_path / "half", technique, dtype="bfloat16")
    for name, value in load_file(tmp_path / "half").items():
        assert value.dtype == (torch.bfloat16 if wanted[name].is_floating_point() else wanted[name].dtype)
    with pytest.raises(MergeError, match="dtype: 'int8' is none of a merged model; give one of float32"):
        merge_files(paths[0], paths[1:], tmp_path / "o", technique, dtype="int8")


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_midway_leaves_the_old_output(files, tmp_path, threads):
    (tmp_path / "o").write_bytes(b"old")
    before = left_in(tmp_path)

    def stop(done, total):
        if done > total * 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_files(files[0], files[1:], tmp_path / "o", "average", chunk=2, threads=threads, progress=stop)
    assert (tmp_path / "o").read_bytes() == b"old"
    assert left_in(tmp_path) == before


KILLED = """
import sys, time
from time_ray.merging import merge_files
def slow(done, total):
    if done > 0.8 * total:
        print("late", flush=True)
        time.sleep(60)
merge_files(*sys.argv[1:2], sys.argv[2:4], sys.argv[4], "average", chunk=2, progress=slow)
"""


def test_a_killed_merge_leaves_no_output(files, tmp_path):
    output = tmp_path / "o"
    command = [sys.executable, "-c", KILLED, *map(str, files[:3]), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "late\n"
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    merge_files(files[0], files[1:3], output, "average")
    assert near(load_file(output), merge(files[0], files[1:3], "average"))


def test_sidecars_are_believed_only_while_their_file_is_unchanged(files, tmp_path):
    merge_files(files[0], files[1:], tmp_path / "o", "ties")
    again = merge_files(files[0], files[1:], tmp_path / "o", "ties", keep=0.5)
    changed = moved(toy(0), 77)
    save_file(changed, files[1], {"format": "pt"})
    os.utime(files[1], ns=(time.time_ns(), time.time_ns() + 10**9))
    renewed = merge_files(files[0], files[1:], tmp_path / "o", "ties", keep=0.5)
    assert renewed["experts"][0] != again["experts"][0]
    assert near(load_file(tmp_path / "o"), merge(files[0], files[1:], "ties", keep=0.5), 0)
    save_file(moved(toy(0), 78), files[0], {"format": "pt"})
    os.utime(files[0], ns=(time.time_ns(), time.time_ns() + 2 * 10**9))
    merge_files(files[0], files[1:], tmp_path / "o", "ties", keep=0.5)
    assert near(load_file(tmp_path / "o"), merge(files[0], files[1:], "ties", keep=0.5), 0)


def test_broken_sidecars_are_remade(files, tmp_path):
    merge_files(files[0], files[1:], tmp_path / "o", "ties")
    whole = (tmp_path / "o").read_bytes()
    (tmp_path / "e1.safetensors.merging").write_bytes(b"broken")
    merge_files(files[0], files[1:], tmp_path / "o", "ties")
    assert (tmp_path / "o").read_bytes() == whole
    with safe_open(tmp_path / "e1.safetensors.merging", "pt") as file:
        assert sorted(file.keys()) == ["image", "text"]


def bytes_of(path, others, output, technique, **how):
    calls: list[tuple[int, int]] = []
    merge_files(path, others, output, technique, progress=lambda *now: calls.append(now), **how)
    return calls[-1][0]


@pytest.mark.parametrize("scope", ["tower", "tensor", "model"])
def test_a_share_that_was_asked_for_before_reads_each_model_once(files, tmp_path, scope):
    size = sum(value.nbytes for value in toy(0).values() if value.is_floating_point())
    how = {"scope": scope, "exact_k": True, "keep": 0.3}
    first = bytes_of(files[0], files[1:], tmp_path / "o", "ties", **how)
    whole = (tmp_path / "o").read_bytes()
    assert bytes_of(files[0], files[1:], tmp_path / "o", "ties", **how) == (3 + 2) * size < first
    assert (tmp_path / "o").read_bytes() == whole
    assert bytes_of(files[0], files[1:], tmp_path / "o", "ties", **how | {"keep": 0.4}) > (3 + 2) * size
    assert near(load_file(tmp_path / "o"), merge(files[0], files[1:], "ties", **how | {"keep": 0.4}), 0)


def test_faults_of_parameters_files_and_output_come_together(files, tmp_path):
    files[2].unlink()
    save_file({"a": torch.zeros(2)}, files[3])
    asked = (files[0], files[1:], tmp_path / "missing" / "o", "ties")
    with pytest.raises(MergeError) as caught:
        merge_files(*asked, keep=2, scaling="much", ids=["a"])
    found = "\n".join(caught.value.faults)
    for part in (
        "keep is 2",
        "scaling is 'much'",
        "ids: ['a']",
        f"{files[2]}: cannot be read",
        f"{files[3]}: a",
        "o: its",
    ):
        assert part in found
    assert list(caught.value.faults) == merge_faults(*asked, keep=2, scaling="much", ids=["a"])
    assert any("technique: 'tyes'" in fault for fault in merge_faults(*asked[:3], "tyes"))
    assert merge_faults(files[0], files[1:2], tmp_path / "o", "ties") == []


@pytest.mark.parametrize("technique", ["average", "ties", "slerp"])
def test_files_that_cannot_be_mapped_or_lie_askew_give_the_same_bytes(files, tmp_path, technique, monkeypatch):
    merge_files(files[0], files[1:], tmp_path / "o", technique)
    raw = files[1].read_bytes()
    header = int.from_bytes(raw[:8], "little") + 1  # one more space moves every tensor by a byte
    files[1].write_bytes(header.to_bytes(8, "little") + raw[8 : header + 7] + b" " + raw[header + 7 :])
    merge_files(files[0], files[1:], tmp_path / "askew", technique)
    monkeypatch.setattr(models, "mapping_of", lambda _: None)
    merge_files(files[0], files[1:], tmp_path / "copied", technique)
    outputs = [load_file(tmp_path / name) for name in ("o", "askew", "copied")]
    assert all(bits(value) == bits(other[name]) for other in outputs[1:] for name, value in outputs[0].items())


def test_little_of_a_mapped_file_is_held(tmp_path):
    save_file({"w": torch.arange(1 << 18, dtype=torch.float32)}, tmp_path / "m")
    model = models.FileModel(tmp_path / "m", mapped=1 << 16)
    (entry,) = model.entries
    for start in range(0, entry.size, 1 << 12):
        assert model.read(entry, start, start + (1 << 12))[7] == start + 7
        assert model.touched <= 1 << 16
    assert model.read(entry, 0, entry.size)[-1] == entry.size - 1
    model.read(entry, 0, 4).zero_()
    assert load_file(tmp_path / "m")["w"][1] == 1
