"""BatchNorm in a merge: statistics are averaged, whatever the technique, and the newest expert's count is kept."""

import pytest
import torch
from merging_toys import RULES, moved, near, same, toy, with_batch_norm
from safetensors.torch import load_file, save_file

from time_ray.merging import MergeError, ema, fold, merge, merge_files, pair

SETTINGS = [(name, params) for name, row in RULES.items() for params in ({}, *row.examples)]
EQUAL = [(name, params) for name, params in SETTINGS if "weights" not in params]


@pytest.mark.parametrize("technique", RULES)
def test_counters_are_the_newest_experts_and_statistics_are_averages(tmp_path, technique):
    models = []
    for steps in (3, 10, 7):
        norm = {"bn.running_mean": torch.full((4,), float(steps)), "bn.running_var": torch.full((4,), steps / 8)}
        counter = {"bn.num_batches_tracked": torch.tensor(steps)}
        models.append({**norm, **counter, "bn.weight": torch.arange(4.0) + steps})
    base, *experts = models
    merged, running = merge(base, experts, technique), fold(technique, base)
    for expert in experts:
        running.add(expert)
    for number, model in enumerate(models):
        save_file(model, tmp_path / str(number))
    merge_files(tmp_path / "0", [tmp_path / "1", tmp_path / "2"], tmp_path / "o", technique)
    steps = ema(base, experts, technique, ids=["x", "y"])
    for result, mean in ((merged, 8.5), (running.result(), 8.5), (load_file(tmp_path / "o"), 8.5), (steps, 6.75)):
        assert result["bn.num_batches_tracked"] == 7
        assert result["bn.running_mean"].tolist() == [mean] * 4
        assert result["bn.running_var"].tolist() == [mean / 8] * 4


@pytest.mark.parametrize(("technique", "share"), [("average", 0.25), ("slerp", 0.25), ("ties", 0.5)])
def test_the_newest_share_is_that_of_statistics_too(technique, share):
    older, newer = ({"bn.running_var": torch.full((4,), value), "w": torch.ones(4, 4)} for value in (2.0, 4.0))
    merged = pair(older, older, newer, technique, weight=0.25)
    assert merged["bn.running_var"].tolist() == [2 + 2 * share] * 4


def test_a_schedule_and_its_layers_count_for_statistics():
    experts = [{"bn.running_mean": torch.full((4,), value)} for value in (1.0, 4.0)]
    assert merge(experts[0], experts, "average", weights=[1, 2])["bn.running_mean"].tolist() == [3] * 4
    by_layer = {"bn.*": "linear", "*": None}
    assert merge(experts[0], experts, "average", weights=by_layer)["bn.running_mean"].tolist() == [3] * 4


@pytest.mark.parametrize("technique", ["ties", "breadcrumbs", "dare", "opcm"])
def test_a_nan_in_a_statistic_is_named_before_anything_is_added(technique):
    base, expert = (with_batch_norm(model, seed) for seed, model in enumerate((toy(0), moved(toy(0), 1))))
    broken = {**expert, "visual.bn1.running_mean": torch.full((4,), torch.nan)}
    running = fold(technique, base)
    with pytest.raises(MergeError, match=r"expert 1: visual\.bn1\.running_mean holds NaN"):
        running.add(broken)
    running.add(expert)
    assert near(running.result(), merge(base, [expert], technique))


@pytest.mark.parametrize(("technique", "params"), EQUAL)
def test_no_setting_makes_a_variance_that_no_data_have(technique, params):
    base, *experts = (with_batch_norm(toy(seed), seed) for seed in range(4))
    merged, running = merge(base, experts, technique, **params), fold(technique, base, **params)
    for expert in experts:
        running.add(expert)
    assert same(running.result(), merged)
    for name in ("visual.bn1.running_mean", "visual.bn1.running_var"):
        assert torch.allclose(merged[name], torch.stack([expert[name] for expert in experts]).mean(0), atol=1e-6)


@pytest.mark.parametrize("technique", ["ties", "breadcrumbs", "dare", "opcm", "lines"])
def test_statistics_do_not_move_the_weights(technique):
    models = [toy(seed) for seed in range(3)]
    params = {"lines": {}} if technique == "lines" else {}
    name = "task_arithmetic" if technique == "lines" else technique
    plain = merge(models[0], models[1:], name, **params)
    base, *experts = (with_batch_norm(model, 100 * seed) for seed, model in enumerate(models))
    merged = merge(base, experts, name, **params)
    assert all(torch.equal(merged[key], plain[key]) for key in plain)
