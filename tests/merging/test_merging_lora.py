"""LoRA adapters as experts: what the expert that peft would write gives, without that expert."""

import json
import math

import pytest
import torch
from merging_toys import near, vector
from safetensors.torch import load_file, save_file
from torch import nn

from time_ray.merging import MergeError, fold, merge, merge_faults, merge_files, pair

MLP, ATTENTION = "visual.transformer.resblocks.0.mlp.c_fc", "visual.transformer.resblocks.0.attn"
EMBEDDING, CONV = "token_embedding", "visual.conv1"
SHAPES = {
    f"{MLP}.weight": (300, 40),
    f"{MLP}.bias": (300,),
    f"{ATTENTION}.in_proj_weight": (24, 8),
    f"{ATTENTION}.out_proj.weight": (8, 8),
    f"{EMBEDDING}.weight": (50, 6),
    f"{CONV}.weight": (5, 3, 2, 2),
    "logit_scale": (),
}


def toy(seed):
    return {name: vector(math.prod(shape), 10 * seed + i).view(shape) for i, (name, shape) in enumerate(SHAPES.items())}


def factors(seed, rank):
    """By name as peft writes them: a linear layer, both projections of an attention, an embedding, a kernel."""
    kinds = {
        f"{MLP}.lora_A.weight": (rank, 40),
        f"{MLP}.lora_B.weight": (300, rank),
        f"{ATTENTION}.lora_A.weight": (rank, 8),
        f"{ATTENTION}.lora_B.weight": (24, rank),
        f"{ATTENTION}.base_layer.out_proj.lora_A.weight": (rank, 8),
        f"{ATTENTION}.base_layer.out_proj.lora_B.weight": (8, rank),
        f"{EMBEDDING}.lora_embedding_A": (rank, 50),
        f"{EMBEDDING}.lora_embedding_B": (6, rank),
        f"{CONV}.lora_A.weight": (rank, 3, 2, 2),
        f"{CONV}.lora_B.weight": (5, rank, 1, 1),
    }
    return {
        f"base_model.model.{name}": 0.1 * vector(math.prod(shape), 1000 * seed + i).view(shape)
        for i, (name, shape) in enumerate(kinds.items())
    }


def written(folder, tensors, **config):
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    given = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(given))
    return folder


def materialised(base, tensors, scale):
    """The expert that the adapter stands for."""
    expert = {name: value.clone() for name, value in base.items()}

    def factor(module, kind="lora_{}.weight"):
        return [tensors[f"base_model.model.{module}.{kind.format(side)}"] for side in "BA"]

    for target, module in (
        (f"{MLP}.weight", MLP),
        (f"{ATTENTION}.in_proj_weight", ATTENTION),
        (f"{ATTENTION}.out_proj.weight", f"{ATTENTION}.base_layer.out_proj"),
    ):
        b, a = factor(module)
        twice = 2 if "out_proj" in target else 1  # as peft itself has it, see test_peft_agrees
        expert[target] += twice * scale * b @ a
    b, a = factor(EMBEDDING, "lora_embedding_{}")
    expert[f"{EMBEDDING}.weight"] += scale * (b @ a).T
    b, a = factor(CONV)
    expert[f"{CONV}.weight"] += scale * torch.einsum("orxy,rihw->oihw", b, a)
    return expert


@pytest.mark.parametrize("technique", ["average", "task_arithmetic", "ties", "magmax", "slerp", "iso_c"])
def test_an_adapter_is_the_expert_that_it_stands_for(tmp_path, technique):
    base, whole = toy(0), toy(7)
    adapters = [written(tmp_path / str(seed), factors(seed, 4)) for seed in (1, 2)]
    experts = [materialised(base, factors(seed, 4), 4.0) for seed in (1, 2)]
    wanted = merge(base, [*experts, whole], technique)
    assert near(merge(base, [*adapters, whole], technique), wanted, 1e-5)
    save_file(base, tmp_path / "base")
    save_file(whole, tmp_path / "whole")
    seen = set()
    for chunk, threads in ((1 << 18, 1), (7, 1), (1000, 3)):
        how = {"chunk": chunk, "threads": threads, "sidecars": False}
        recipe = merge_files(tmp_path / "base", [*adapters, tmp_path / "whole"], tmp_path / "o", technique, **how)
        seen.add((tmp_path / "o").read_bytes())
    assert near(load_file(tmp_path / "o"), wanted, 1e-5)
    assert [expert["file"] for expert in recipe["experts"]] == ["1", "2", "whole"]
    assert len(seen) == 1


def test_an_adapter_changes_what_it_says_and_nothing_else(tmp_path):
    base = toy(0)
    expert = merge(base, [written(tmp_path / "a", factors(1, 4))], "average")
    wanted = materialised(base, factors(1, 4), 4.0)
    for name in SHAPES:
        assert torch.equal(expert[name], base[name]) == (name in (f"{MLP}.bias", "logit_scale"))
        assert torch.allclose(expert[name], wanted[name], atol=1e-6)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"use_rslora": True}, 16 / 2),
        ({"lora_alpha": 2}, 0.5),
        ({"alpha_pattern": {"c_fc": 8, "attn": 8, "out_proj": 8, "token_embedding": 8, "conv1": 8}}, 2.0),
    ],
)
def test_the_scale_is_what_peft_makes_of_its_configuration(tmp_path, config, scale):
    base = toy(0)
    expert = merge(base, [written(tmp_path / "a", factors(1, 4), **config)], "average")
    assert near(expert, materialised(base, factors(1, 4), scale), 1e-5)


def test_transposed_layers_and_half_precision(tmp_path):
    base = {"c.weight": vector(40, 1).view(5, 8).bfloat16()}
    a, b = vector(10, 2).view(2, 5), vector(16, 3).view(8, 2)
    tensors = {"base_model.model.c.lora_A.weight": a, "base_model.model.c.lora_B.weight": b}
    folder = written(tmp_path / "a", tensors, lora_alpha=2, r=2, fan_in_fan_out=True)
    expert = (base["c.weight"].float() + (b @ a).T).bfloat16()
    assert torch.equal(merge(base, [folder], "average")["c.weight"], expert)


def test_adapters_in_running_merges_and_folds(tmp_path):
    base = toy(0)
    adapters = [written(tmp_path / str(seed), factors(seed, 4)) for seed in (1, 2)]
    experts = [materialised(base, factors(seed, 4), 4.0) for seed in (1, 2)]
    assert near(pair(base, experts[0], adapters[1], "average"), pair(base, *experts, "average"), 1e-5)
    running = fold("ties", base)
    for adapter in adapters:
        running.add(adapter)
    assert near(running.result(), merge(base, experts, "ties"), 1e-5)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"peft_type": "IA3"}, "is of peft's type IA3, and only LORA is read"),
        ({"use_dora": True}, "use_dora: DoRA's magnitudes are not supported"),
        ({"bias": "all"}, "bias: 'all': trained biases are not supported"),
        ({"modules_to_save": ["head"]}, "modules_to_save: modules that were trained whole are not supported"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights: 'pissa_niter_4' changes the base itself"),
    ],
)
def test_what_is_more_than_factors_is_refused_by_name(tmp_path, config, part):
    with pytest.raises(MergeError) as caught:
        merge(toy(0), [written(tmp_path / "a", factors(1, 4), **config)], "average")
    (fault,) = caught.value.faults
    assert fault.startswith(f"{tmp_path / 'a'}: {part}")


def test_factors_that_fit_nothing_are_named(tmp_path):
    alone = {"base_model.model.token_embedding.lora_embedding_A": torch.zeros(4, 50)}
    unknown = {f"base_model.model.vision.lora_{side}.weight": torch.zeros(4, 4) for side in "AB"}
    wide = {f"base_model.model.{MLP}.lora_{side}.weight": torch.zeros(4, 4) for side in "AB"}
    other = {"base_model.model.head.weight": torch.zeros(2)}
    adapter = written(tmp_path / "a", {**alone, **unknown, **wide, **other})
    save_file(toy(0), tmp_path / "base")
    faults = merge_faults(tmp_path / "base", [adapter], tmp_path / "o", "average")
    assert sorted(fault.split("; ")[0].removeprefix(f"{adapter}: ") for fault in faults) == [
        "base_model.model.head.weight is no factor of LoRA",
        "base_model.model.token_embedding has lora_A alone",
        "base_model.model.vision is no module of the base",
        f"base_model.model.{MLP}: its product is [4, 4], and {MLP}.weight float32[300, 40]",
    ]
    (fault,) = merge_faults(adapter, [adapter], tmp_path / "o", "average")[:1]
    assert "is an adapter, which is no model without its base" in fault


ODD_CONFIGS = {
    "an alpha that is true": {"lora_alpha": True},
    "an alpha that is a text": {"lora_alpha": "8"},
    "a pattern that is none": {"alpha_pattern": {"[": 8}},
    "a pattern's text": {"alpha_pattern": {"fc": "8"}},
    "a list of patterns": {"alpha_pattern": [8]},
}


@pytest.mark.parametrize("kind", ODD_CONFIGS)
def test_a_configuration_that_makes_no_sense_is_refused(tmp_path, kind):
    folder = written(tmp_path / "e", factors(1, 4), **ODD_CONFIGS[kind])
    with pytest.raises(MergeError) as caught:
        merge(toy(0), [folder], "average")
    path = folder / "adapter_config.json"
    assert caught.value.faults == (f"{path}: no configuration of a LoRA adapter; give the one that peft has written",)


@pytest.mark.parametrize("name", ["arrow_config", "use_bdlora", "kasa_config", "use_what_comes_next"])
def test_what_a_later_peft_may_do_is_not_passed_over(tmp_path, name):
    folder = written(tmp_path / "e", factors(1, 4), **{name: {"rank": 2}})
    with pytest.raises(MergeError, match=f"{name}: is not known here, and may change the model; merge it"):
        merge(toy(0), [folder], "average")
    merge(toy(0), [written(tmp_path / "off", factors(1, 4), **{name: None})], "average")


A, B = f"base_model.model.{MLP}.lora_A.weight", f"base_model.model.{MLP}.lora_B.weight"
ODD_FACTORS = {
    "ranks that differ": ({A: (4, 40), B: (300, 5)}, torch.float32, "its factors have ranks 4 and 5; give the whole"),
    "no rank": ({A: (0, 40), B: (300, 0)}, torch.float32, "its factors have ranks 0 and 0; give the whole adapter"),
    "vectors": ({A: (40,), B: (300,)}, torch.float32, "lora_A.weight is float32[40]; give a matrix of float32"),
    "numbers": ({A: (), B: ()}, torch.float32, "lora_A.weight is float32[]; give a matrix of float32"),
    "fp8": ({A: (4, 40), B: (300, 4)}, torch.float8_e4m3fn, "lora_A.weight is float8_e4m3fn[4, 40]; give a matrix"),
    "integers": ({A: (4, 40), B: (300, 4)}, torch.int8, "lora_A.weight is int8[4, 40]; give a matrix of float32"),
    "complex numbers": ({A: (4, 40), B: (300, 4)}, torch.complex64, "lora_A.weight is complex64[4, 40]; give a"),
}


@pytest.mark.parametrize("kind", ODD_FACTORS)
def test_factors_that_make_no_product_are_named(tmp_path, kind):
    shapes, dtype, told = ODD_FACTORS[kind]
    folder = written(tmp_path / "e", {name: torch.ones(shape).to(dtype) for name, shape in shapes.items()})
    with pytest.raises(MergeError) as caught:
        merge(toy(0), [folder], "average")
    assert told in caught.value.faults[0]
    assert MLP in caught.value.faults[0]


@pytest.mark.parametrize("name", ["", "adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_is_its_folder_or_any_file_of_it(tmp_path, name):
    folder = written(tmp_path / "e", factors(1, 4))
    assert near(merge(toy(0), [folder / name], "average"), merge(toy(0), [folder], "average"), 0)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(MergeError, match=r"adapter_config\.json: cannot be read"):
        merge(toy(0), [folder / name], "average")


def test_an_adapter_is_not_blamed_for_its_base(tmp_path):
    folder = written(tmp_path / "e", factors(1, 4))
    (fault,) = merge_faults(tmp_path / "gone", [folder], tmp_path / "o", "average")
    assert fault.startswith(f"{tmp_path}/gone: cannot be read")


def test_nan_in_an_adapter_is_named(tmp_path):
    tensors = factors(1, 4)
    tensors[f"base_model.model.{MLP}.lora_A.weight"][0, 0] = float("nan")
    adapter = written(tmp_path / "a", tensors)
    with pytest.raises(MergeError, match=f"a: {MLP}.weight holds NaN or Inf"):
        merge(toy(0), [adapter], "average")


@pytest.mark.filterwarnings("ignore")  # patterns that match nothing
@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"rank_pattern": {"fc": 2}, "alpha_pattern": {"fc": 5}}])
@pytest.mark.parametrize("targets", [["emb", "conv", "fc"], ["attn"]])
def test_peft_agrees(tmp_path, config, targets):
    """Optional: peft must be installed."""
    peft = pytest.importorskip("peft", reason="peft is not installed (optional)")
    modules = {"emb": nn.Embedding(20, 8), "conv": nn.Conv2d(3, 8, 2), "fc": nn.Linear(8, 12)}
    model = nn.ModuleDict({**modules, "attn": nn.MultiheadAttention(8, 2)})
    base = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets, **config))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter)
    adapted.save_pretrained(tmp_path)
    assert near(merge(base, [tmp_path], "average"), adapted.merge_and_unload().state_dict(), 1e-5)
