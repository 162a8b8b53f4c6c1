"""What holds of every strategy in the table, with parameters drawn from its own fields: a new one joins by its row."""

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
import yaml
from hypothesis import given, reject
from hypothesis import strategies as st
from pydantic import ValidationError
from toy_grid import setting, technique

from time_ray.core import recipe
from time_ray.core.errors import UserError
from time_ray.core.experiment import Experiment
from time_ray.core.grid import Cell, Setting
from time_ray.core.plan import needs, plan
from time_ray.core.recipe import Base, Experts, Merged, OuterStep, Patched, Recipe, ResolvedTechnique, Running, Trained
from time_ray.core.strategies import STRATEGIES, Ema, Ft, Strategy, Window, read, register

NUM_TASKS = 5
BLENDS = (technique("blend"), technique("other blend", weighs_experts=True))  # one expert alone is itself
SUMS = tuple(technique(name, weighted=False, alone=False) for name in ("sum", "other sum"))
TECHNIQUES = (*BLENDS, *SUMS)


def settings_of(kind: type[Strategy]) -> st.SearchStrategy[Strategy]:
    fields = {name: Annotated[field.annotation, "", *field.metadata] for name, field in kind.model_fields.items()}

    def built(parameters: dict[str, Any]) -> Strategy:
        try:
            return kind(**parameters)
        except ValidationError:  # parameters that exclude each other
            reject()

    return st.fixed_dictionaries({name: st.from_type(field) for name, field in fields.items()}).map(built)


def kinds(*, with_parameters: bool = False) -> st.SearchStrategy[type[Strategy]]:
    return st.sampled_from([kind for kind in STRATEGIES.values() if kind.model_fields or not with_parameters])


ANY = kinds().flatmap(settings_of)
TWO_OF_A_KIND = kinds(with_parameters=True).flatmap(lambda kind: st.tuples(settings_of(kind), settings_of(kind)))
SIZES = st.integers(1, NUM_TASKS + 1).map(lambda size: Window(size=size))  # most that are drawn hold every task


def cell(init: Strategy, deploy: Strategy, of: ResolvedTechnique, where: Setting | None = None) -> Cell:
    return Cell(init, deploy, of, where or setting(NUM_TASKS))


def keys(walked: Cell) -> list[str]:
    return [part.key for step in walked.walk() for part in (step.start, step.expert, step.deployed)]


def experts(walked: Cell) -> list[str]:
    return list(needs(walked).experts)


@given(TWO_OF_A_KIND)
def test_other_parameters_are_another_label_key_and_written_form(two: tuple[Strategy, Strategy]) -> None:
    one, other = two
    if one == other:
        return
    assert one.label != other.label
    assert one.written() != other.written()
    assert cell(one, Ft(), BLENDS[0]).key != cell(other, Ft(), BLENDS[0]).key
    assert cell(Ft(), one, BLENDS[0]).key != cell(Ft(), other, BLENDS[0]).key


@given(ANY)
def test_what_is_written_is_read_as_the_same(strategy: Strategy) -> None:
    assert read(yaml.safe_load(yaml.safe_dump(strategy.written()))) == strategy


@given(ANY, st.sampled_from([BLENDS, SUMS]))
def test_the_technique_counts_exactly_where_there_is_a_merge(
    strategy: Strategy, techniques: tuple[ResolvedTechnique, ResolvedTechnique]
) -> None:
    where = setting(NUM_TASKS)
    for init, deploy in ((strategy, Ft()), (Ft(), strategy)):
        one, other = (cell(init, deploy, of, where) for of in techniques)
        merges = bool(needs(one).merges)
        assert (keys(one) != keys(other)) == merges
        assert (one.trajectory != other.trajectory) == (merges and init is strategy)


@given(ANY | SIZES, ANY | SIZES, st.sampled_from(TECHNIQUES), st.sampled_from(TECHNIQUES))
def test_cells_share_a_trajectory_exactly_where_they_share_their_experts(
    one: Strategy, other: Strategy, of: ResolvedTechnique, of_other: ResolvedTechnique
) -> None:
    where = setting(NUM_TASKS)
    beside = [cell(one, other, of, where), cell(other, one, of_other, where)]
    alone = [cell(one, other, of), cell(other, one, of_other)]
    assert [keys(found) for found in beside] == [keys(found) for found in alone]
    assert (beside[0].trajectory == beside[1].trajectory) == (experts(beside[0]) == experts(beside[1]))


def structure(of: Recipe, known: dict[object, int]) -> int:
    """A number for what a recipe says, whatever its key: equal numbers are equal parts in equal order."""
    match of:
        case Base():
            said: tuple[object, ...] = ("base",)
        case Trained():
            said = ("trained", structure(of.start, known), of.training.task.number)
        case Merged():
            merged = (of.technique.name, str(of.technique.params))
            said = ("merged", *merged, *(structure(expert, known) for expert in of.experts))
        case Running():
            said = ("running", of.technique.name, *(structure(part, known) for part in (of.older, of.newer)), of.weight)
        case OuterStep():
            said = ("outer", structure(of.merge, known), structure(of.since, known), of.momentum, of.nesterov)
        case Patched():
            said = ("patched", structure(of.model, known), of.length)
    return known.setdefault(said, len(known))


@given(ANY | SIZES, ANY | SIZES, st.sampled_from(TECHNIQUES), st.sampled_from(TECHNIQUES))
def test_recipes_have_a_key_in_common_exactly_where_they_say_the_same(
    one: Strategy, other: Strategy, of: ResolvedTechnique, of_other: ResolvedTechnique
) -> None:
    known: dict[object, int] = {}
    walked = (cell(one, other, of), cell(other, one, of_other))
    made = [part for found in walked for step in found.walk() for part in (step.start, step.expert, step.deployed)]
    made += [part.model for part in made if isinstance(part, Patched)]
    made += [part.merge for part in made if isinstance(part, OuterStep)]
    assert len({(part.key, structure(part, known)) for part in made}) == len({part.key for part in made}) == len(known)


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_the_first_task_starts_from_the_base(name: str) -> None:
    where = setting(2)
    assert next(iter(cell(read(name), Ft(), SUMS[0], where).walk())).start is where.base


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_planning_makes_a_few_keys_a_task(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each task looks back at all others: a stream of 200 tasks is planned at once."""
    made = 0

    def counted(*parts: object) -> str:
        nonlocal made
        made += 1
        return whole(*parts)

    whole = recipe.key_of
    monkeypatch.setattr(recipe, "key_of", counted)
    strategy = read({"name": name, "size": 100} if name == "window" else name)
    where = setting(200)
    made = 0
    plan([cell(strategy, strategy, of, where) for of in SUMS])
    assert made < 200 * len(SUMS) * 6


@pytest.fixture
def alternate() -> Iterator[type[Strategy]]:
    """A strategy of somebody else."""

    @register
    class Alternate(Strategy):
        """Every other expert."""

        name = "alternate"
        odd: Annotated[bool, "of the first, third, fifth task"] = True

        def recipe(self, base: Base, experts: Experts, _: ResolvedTechnique, /) -> Recipe:
            return experts.newest if experts.length % 2 == self.odd else base

    yield Alternate
    del STRATEGIES["alternate"]


def test_a_registered_strategy_stands_in_an_experiment(alternate: type[Strategy]) -> None:
    written: dict[str, Any] = {
        "name": "tiny",
        "init": ["zs", {"name": "alternate", "odd": False}],
        "deploy": "alternate",
        "technique": "average",
        "model": "mini-tiny",
        "budget": "2 steps",
        "data": "mini",
    }
    experiment = Experiment.model_validate(written)
    assert experiment.init[1] == alternate(odd=False)
    assert experiment.written()["init"] == ["zs", {"name": "alternate", "odd": False}]
    assert Experiment.model_validate(experiment.written()) == experiment
    starts = [step.start for step in cell(experiment.init[1], Ft(), BLENDS[0]).walk()]
    assert [isinstance(start, Trained) for start in starts] == [False, False, True, False, True]
    with pytest.raises(ValueError, match="odd can be set for alternate only, not for ema"):
        Experiment.model_validate({**written, "init": {"name": "ema", "odd": False}})


def test_a_name_is_registered_once() -> None:
    with pytest.raises(UserError, match="strategy 'ema': the name is taken; give it another"):
        register(Ema)
