"""Experts that are given as files: merged over time as they are, and told in a line where they do not fit."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import CLASSES, rows
from safetensors.torch import save_file
from torch import Tensor

from time_ray import api, merging
from time_ray.clip.models import base_weights, expert_weights
from time_ray.cluster.given_experts import copy_experts, missing_experts
from time_ray.core.errors import StoreError, UserError
from time_ray.core.keys import key_of
from time_ray.core.model import ModelSpec
from time_ray.core.recipe import GivenExpert
from time_ray.data.dataset import write_dataset
from time_ray.events import CellsRunning, Event, ExpertTrained, ModelEvaluated
from time_ray.store.files import Files
from time_ray.study import check_experts
from time_ray.whole_files import file_digest

NAMES = ("alpha", "beta", "gamma")
GIVEN: dict[str, Any] = {
    "init": "zs",
    "deploy": "all",
    "technique": {"name": "ties", "scaling": 0.5},
    "data": {"adaptation": list(NAMES), "evaluation": "held_out"},
    "stream": {"order": "random_datasets"},
    "experts": "experts",
}
TINY = ModelSpec(name="mini-tiny")
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def moved() -> Mapping[str, Mapping[str, Tensor]]:
    """An expert for each dataset: the base, and small random changes."""
    base = base_weights(TINY)
    generator = torch.Generator().manual_seed(0)
    return {
        name: {
            key: tensor + 0.01 * torch.randn(tensor.shape, generator=generator)
            if tensor.is_floating_point()
            else tensor
            for key, tensor in base.items()
        }
        for name in NAMES
    }


@pytest.fixture
def given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_experiment: Make, moved: Mapping[str, Mapping[str, Tensor]]
) -> Path:
    """The experiment file; in the current folder the data, of which only test images are needed, and the experts."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate((*NAMES, "held_out")):
        splits = {"test": rows(6, first=10 * number)}
        write_dataset(
            name,
            name=name,
            kind="classification",
            classes=CLASSES,
            templates=("a {}.",),
            splits={"train": [], **splits},
        )
    Path("experts").mkdir()
    save_file(dict(moved["alpha"]), "experts/alpha.safetensors")
    torch.save({"state_dict": moved["beta"]}, "experts/beta.pt")
    save_file(dict(moved["gamma"]), "experts/gamma.safetensors")
    return new_experiment(tmp_path, **GIVEN)


def test_they_are_merged_over_time_as_they_are(
    given: Path, moved: Mapping[str, Mapping[str, Tensor]], time_ray: Callable[..., Any]
) -> None:
    """In the order of each seed; they lie in the store once, whatever the order."""
    words = (given, "seed=[0,1]")
    plan = json.loads(time_ray("plan", *words, "-f", "json").out)
    assert plan["trainings"]["to_do"] == len(NAMES)
    assert plan["steps"] == {"mini-tiny": {"2 steps": 0}}
    opened = api.open_experiment(given, words[1:])
    outcome = api.sweep(opened)
    assert outcome.exit_code == 0
    orders = set()
    for result in outcome.results:
        steps = list(result.cell.walk())
        order = tuple(step.training.task.concepts[0].dataset for step in steps)
        orders.add(order)
        assert {"acc", "bwt", "ka", "zs", "gm"} <= {name for name, value in result.final.items() if value is not None}
        served = opened.store.get(result.final_key)
        assert served is not None
        ids = [step.expert.key for step in steps]
        want = merging.merge(base_weights(TINY), [moved[name] for name in order], "ties", ids=ids, scaling=0.5)
        assert all(torch.equal(want[name], tensor) for name, tensor in served.items())
        entry: Any = opened.store.entry("weights", ids[order.index("beta")])
        assert entry["recipe"]["given"] == "beta.pt"
        assert entry["recipe"]["digest"] == file_digest(Path("experts/beta.pt"))
    assert len(orders) == 2
    assert all(set(order) == set(NAMES) for order in orders)
    assert time_ray("plan", *words).err.startswith("note: experts are read from experts: nothing is trained")
    assert json.loads(time_ray("plan", *words, "-f", "json").out)["seconds"] == 0


def test_their_sweep_can_be_timed_beforehand(given: Path, time_ray: Callable[..., Any]) -> None:
    assert json.loads(time_ray("plan", given, "--measure", "-f", "json").out)["seconds"] > 0
    assert time_ray("plan", given, "--gpus", "2,8").status == 0


def expert_keys(path: Path) -> dict[str, str]:
    (cell, *_) = api.open_experiment(path).study.cells
    return {step.training.task.concepts[0].dataset: step.expert.key for step in cell.walk()}


def test_a_key_never_moves(given: Path) -> None:
    base = api.open_experiment(given).study.settings[0].base
    files = {"alpha": "alpha.safetensors", "beta": "beta.pt", "gamma": "gamma.safetensors"}
    assert expert_keys(given) == {
        name: key_of("trained", base.key, key_of("given", file_digest(Path("experts", file))))
        for name, file in files.items()
    }


def test_findings_are_about_trainings(given: Path, time_ray: Callable[..., Any]) -> None:
    for words in ((), ("--run",)):
        done = time_ray("findings", given, *words)
        assert done.status == 2
        assert "experts are given, and findings are about their training; remove experts" in done.err


def test_a_key_is_of_the_files_bytes(given: Path, moved: Mapping[str, Mapping[str, Tensor]]) -> None:
    before = expert_keys(given)
    Path("experts").rename("elsewhere")
    given.write_text(given.read_text().replace("experts: experts", "experts: elsewhere"))
    assert expert_keys(given) == before
    save_file(dict(moved["beta"]), "elsewhere/alpha.safetensors")
    after = expert_keys(given)
    assert {name for name in NAMES if after[name] != before[name]} == {"alpha"}


def test_all_that_makes_no_sense_with_them_is_said_at_once(given: Path, time_ray: Callable[..., Any]) -> None:
    done = time_ray(
        "sweep", given, "init=[zs,ft,ema]", "budget=[1steps,2steps]", "multitask=true", "stream.order=random"
    )
    assert done.status == 2
    found = done.err.splitlines()
    assert len(found) == 5
    for text in (
        "'ft': given experts start from the base, whatever came before; leave zs alone, or remove experts",
        "'ema': given experts start from the base",
        "random: an expert is given for each dataset; write random_datasets or dataset_incremental",
        "experts are given, so that no budget is spent; keep one",
        "trains, but experts are given; remove one of the two",
    ):
        assert sum(text in line for line in found) == 1


def test_seeds_that_differ_in_nothing_are_told(given: Path, time_ray: Callable[..., Any]) -> None:
    done = time_ray("plan", given, "seed=[0,1]", "stream.order=dataset_incremental")
    assert "'seed 1' is the same as 'seed 0'; keep one" in done.err


def test_statistics_of_trainings_are_refused(given: Path, time_ray: Callable[..., Any]) -> None:
    done = time_ray("plan", given, "batch_norm.statistics=reestimate")
    assert "reestimate wants a training, but experts are given; write average" in done.err


def test_files_that_are_missing_or_too_many_are_told_each(given: Path, time_ray: Callable[..., Any]) -> None:
    Path("experts/alpha.safetensors").rename("experts/alfa.safetensors")
    Path("experts/delta.pt").write_bytes(b"")
    Path("experts/gamma.pt").write_bytes(b"")
    Path("experts/notes.txt").write_text("not read")
    found = time_ray("plan", given).err.splitlines()
    assert len(found) == 4
    assert "'experts/alpha.safetensors': missing, as is .pt; did you mean 'alfa'?" in found[0]
    assert "'experts/alfa.safetensors': no dataset is named so; the stream has alpha, beta, gamma" in found[1]
    assert "'experts/delta.pt': no dataset is named so" in found[2]
    assert "'experts/gamma.pt' and 'gamma.safetensors' are both of dataset gamma; keep one" in found[3]


def test_what_lies_there_instead_of_a_file_is_named(given: Path, time_ray: Callable[..., Any]) -> None:
    Path("experts/alpha.safetensors").rename("experts/alpha.pth")
    Path("experts/beta.pt").unlink()
    Path("experts/beta.pt").symlink_to("nowhere")
    Path("experts/gamma.safetensors").unlink()
    Path("experts/gamma.safetensors").mkdir()
    found = time_ray("plan", given).err.splitlines()
    for line, name in zip(found, ("alpha.pth", "beta.pt", "gamma.safetensors"), strict=True):
        assert f"missing, as is .pt; '{name}' is no file that ends so" in line


def test_a_search_of_orders_copies_every_expert_once(given: Path) -> None:
    """All orders share them."""
    words = ["seed=[0,1,2]", "technique=[average,magmax]", "search={}"]
    found = api.plan(api.open_experiment(given, words)).search
    assert found is not None
    assert (found.expected, found.worst) == (len(NAMES), len(NAMES))


def test_copies_of_an_expert_count_once_each(
    given: Path, moved: Mapping[str, Mapping[str, Tensor]], time_ray: Callable[..., Any]
) -> None:
    shutil.copy("experts/alpha.safetensors", "experts/gamma.safetensors")
    words = (given, "technique=average", "stream.order=dataset_incremental")
    assert "experts/gamma.safetensors' has the same bytes as '" in time_ray("plan", *words).err
    opened = api.open_experiment(given, words[1:])
    outcome = api.sweep(opened)
    assert outcome.exit_code == 0
    served = opened.store.get(outcome.results[0].final_key)
    assert served is not None
    for name, tensor in served.items():
        alpha, beta = moved["alpha"][name].double(), moved["beta"][name].double()
        torch.testing.assert_close(tensor.double(), (2 * alpha + beta) / 3, rtol=1e-5, atol=1e-6)


def test_second_moments_are_of_trainings(given: Path, time_ray: Callable[..., Any]) -> None:
    done = time_ray("plan", given, "technique=[average,fisher]")
    assert done.status == 2
    (line,) = done.err.splitlines()
    assert "'fisher': it needs second moments of trainings, but experts are given; take it out, or remove" in line


def test_others_may_lie_beside_them(given: Path, time_ray: Callable[..., Any]) -> None:
    """One folder serves streams of eight, fourteen and twenty datasets."""
    Path("experts/delta.pt").write_bytes(b"no model")
    assert time_ray("plan", given).status == 0


def test_a_folder_that_is_none_is_told(given: Path, time_ray: Callable[..., Any]) -> None:
    done = time_ray("plan", given, "experts=nowhere")
    assert "experts: 'nowhere' is no folder; give one with a file alpha.safetensors for each dataset" in done.err


def test_experts_of_another_architecture_are_told_by_the_plan(
    given: Path, moved: Mapping[str, Mapping[str, Tensor]], time_ray: Callable[..., Any]
) -> None:
    odd = dict(moved["alpha"])
    odd["visual.proj"] = odd["visual.proj"][:, :3].contiguous()
    del odd["text_projection"]
    save_file(odd | {"more": torch.zeros(1)}, "experts/alpha.safetensors")
    Path("experts/gamma.safetensors").write_bytes(b"no model")
    done = time_ray("plan", given)
    assert done.status == 2
    found = done.err.splitlines()
    assert [line for line in found if "visual.proj: shape [64, 3], but mini-tiny has" in line]
    assert [line for line in found if "text_projection: missing" in line]
    assert [line for line in found if "more: mini-tiny has no such tensor" in line]
    assert [line for line in found if "gamma.safetensors" in line]
    assert len(found) == 4


def test_each_model_has_a_folder_of_its_own(given: Path, time_ray: Callable[..., Any]) -> None:
    found = time_ray("plan", given, "model=[mini-tiny,mini-base]").err.splitlines()
    assert len(found) == 2
    assert "experts/mini-tiny' is no folder" in found[0]
    for spec in (TINY, ModelSpec(name="mini-base")):
        Path("experts", spec.name).mkdir()
        for name in NAMES:
            save_file(base_weights(spec), f"experts/{spec.name}/{name}.safetensors", metadata={"of": name})
    assert time_ray("plan", given, "model=[mini-tiny,mini-base]").status == 0
    save_file(base_weights(TINY), "experts/mini-base/beta.safetensors")
    assert "but mini-base has" in time_ray("plan", given, "model=[mini-tiny,mini-base]").err


def test_a_file_that_was_changed_since_is_not_taken(given: Path) -> None:
    check_experts(api.open_experiment(given).study, stored=())
    path = Path("experts/alpha.safetensors")
    with pytest.raises(UserError, match="changed since the sweep began; start the sweep again"):
        expert_weights(TINY, GivenExpert(str(path), "0" * 64))


def test_what_came_of_files_that_are_gone_can_still_be_read(given: Path, time_ray: Callable[..., Any]) -> None:
    """And merged: experts lie in the store. One that is neither there nor in a file is told before anything runs."""
    words = (given, "deploy=ft", "technique=average")
    assert time_ray("sweep", *words).status == 0
    before = time_ray("best", *words, "-f", "json").out
    keys = expert_keys(given)
    Path("experts").rename("elsewhere")
    assert time_ray("best", *words, "-f", "json").out == before
    for command in ("show", "status", "plan", "sweep", "report"):
        assert time_ray(command, *words).status == 0
    assert time_ray("sweep", given, "deploy=all", "technique=average").status == 0
    opened = api.open_experiment(given)
    shutil.rmtree(opened.files.path("weights", keys["beta"][:2], keys["beta"]))
    for command in ("plan", "sweep"):
        done = time_ray(command, given, "technique=magmax")
        assert (done.status, len(done.err.splitlines())) == (2, 1)
        assert "experts/beta.pt" in done.err
    Path("elsewhere/alpha.safetensors").rename("elsewhere/alfa.safetensors")  # never seen there
    assert "did you mean 'alfa'?" in time_ray("plan", given, "experts=elsewhere").err


def test_a_storage_that_takes_nothing_can_be_read(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreError("full")

    keys = expert_keys(given)
    Path("experts/alpha.safetensors").touch()  # its digest is to be noted anew
    monkeypatch.setattr(Files, "write", full)
    assert expert_keys(given) == keys


def test_an_address_is_told(given: Path, time_ray: Callable[..., Any]) -> None:
    done = time_ray("plan", given, "experts=s3://bucket/experts")
    assert "experts: 's3://bucket/experts' is an address; experts are read from a folder on a disk" in done.err


def test_they_are_copied_before_trials_start(given: Path) -> None:
    """But for one whose file has changed: its cells say so."""
    opened = api.open_experiment(given)
    missing, keys = missing_experts(opened.study.cells, opened.store), expert_keys(given)
    shutil.copy("experts/alpha.safetensors", "experts/gamma.safetensors")
    events = list[Event]()
    copy_experts(missing, opened.study, opened.store, events.append, lambda: False)
    left = missing_experts(opened.study.cells, opened.store)
    assert [Path(expert.training.given.path).name for expert in left if expert.training.given] == ["gamma.safetensors"]
    copied = {event.expert for event in events if isinstance(event, ExpertTrained)}
    assert copied == {keys["alpha"], keys["beta"]}


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_on_ray_no_worker_reads_their_files(given: Path, time_ray: Callable[..., Any]) -> None:
    """They are gone before trials begin; trials of two workers and of one serve the same models."""
    words = (given, "seed=[0,1]", "deploy=[all,ema]")
    assert time_ray("sweep", *words).status == 0
    here = api.open_experiment(given, words[1:])
    want = {result.cell.key: result.final for result in api.status(here)}
    for workers in (1, 2):
        more = [*words[1:], f"run.workers={workers}", "run.trials=2", f"storage={given.parent}/ray-{workers}"]
        opened = api.open_experiment(given, more)

        def remove(event: Event) -> None:
            if isinstance(event, CellsRunning):
                shutil.rmtree("experts", ignore_errors=True)

        shutil.copytree("experts", "kept")
        outcome = api.sweep(opened, remove)
        Path("kept").rename("experts")
        assert (outcome.exit_code, outcome.tracking_error) == (0, None)
        assert {result.cell.key: result.final for result in outcome.results} == want
        again = list[Event]()
        assert api.sweep(api.open_experiment(given, more), again.append).exit_code == 0
        assert not [event for event in again if isinstance(event, ExpertTrained | ModelEvaluated)]


def test_a_file_that_was_changed_fails_its_cells_alone(given: Path) -> None:
    opened = api.open_experiment(given, ["deploy=ft", "technique=average"])
    Path("experts/gamma.safetensors").replace("experts/beta.pt")
    shutil.copy("experts/beta.pt", "experts/gamma.safetensors")
    outcome = api.sweep(opened)
    assert outcome.exit_code == 1
    (failure,) = outcome.failures.values()
    assert "beta.pt: gone, or changed since the sweep began" in failure.error
