from collections import Counter
from collections.abc import Callable

import pytest
import torch
from pictures import picture, rows

from time_ray.core.errors import CellError, UserError
from time_ray.core.mixture import Mixture
from time_ray.core.preprocessing import Resizing
from time_ray.core.stream import Concept, Task
from time_ray.data.batch import Batch
from time_ray.data.batches import batches
from time_ray.data.dataset import Data, Dataset, Row

Make = Callable[..., Dataset]
TASKS = (
    Task(1, (Concept("pets", "cat"),)),
    Task(2, (Concept("birds", "owl"), Concept("pets", "dog"))),
    Task(3, (Concept("birds", "cat"), Concept("birds", "dog"))),
)
REPLAY = Mixture(pretraining=0.25, update=0.5, buffer=0.25)


@pytest.fixture
def data(make_dataset: Make) -> Data:
    named = {
        name: [row._replace(captions=tuple(f"{name} {text}" for text in row.captions)) for row in rows(30, 100 * i)]
        for i, name in enumerate(("pets", "birds", "pool"))
    }
    pets, birds, pool = (make_dataset(name, train) for name, train in named.items())
    return Data(adaptation=(pets, birds), evaluation=(), pretraining=pool)


def draw(data: Data, task: int = 3, mixture: Mixture = REPLAY, **options: object) -> list[Batch]:
    settings = {"batch_size": 8, "steps": 6, "seed": 0, "resizing": Resizing(16), "augment": "crop"} | options
    return list(batches(TASKS[task - 1], TASKS[: task - 1], data, mixture, **settings))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return all(torch.equal(x.images, y.images) and x.texts == y.texts for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("augment", ["none", "crop"])
def test_images_are_resized_as_the_model_wants_them(make_dataset: Make, augment: str):
    wide = [row._replace(image=picture(i, (40, 20))) for i, row in enumerate(rows(6))]
    data = Data(adaptation=(make_dataset("pets", wide),), evaluation=(), pretraining=None)
    ways = [Resizing(16, mode, how) for mode in ("shortest", "longest", "squash") for how in ("bicubic", "bilinear")]
    task = Task(1, (Concept("pets", "cat"),))
    settings = {"batch_size": 2, "steps": 1, "seed": 0, "augment": augment}
    found = {
        next(batches(task, (), data, Mixture(), resizing=way, **settings)).images.numpy().tobytes() for way in ways
    }
    assert len(found) == (len(ways) if augment == "none" else 2)  # a random part of an image is squashed in any mode


def test_seed_and_task_decide_and_nothing_else(data: Data):
    first = draw(data)
    assert same(first, draw(data))
    assert not same(first, draw(data, seed=1))
    assert [batch.texts for batch in first] != [batch.texts for batch in draw(data, seed=1)]
    assert same(first[2:], draw(data, start_step=2))


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("buffer_size", [None, 5])
def test_workers_share_the_batches_of_one(data: Data, world_size: int, buffer_size: int | None):
    mixture = REPLAY.model_copy(update={"buffer_size": buffer_size})
    parts = [draw(data, mixture=mixture, rank=rank, world_size=world_size, loaders=rank) for rank in range(world_size)]
    joined = [
        Batch(torch.cat([batch.images for batch in step]), [text for batch in step for text in batch.texts])
        for step in zip(*parts, strict=True)
    ]
    assert same(joined, draw(data, mixture=mixture))


def source(text: str) -> tuple[str, str]:
    """Dataset and class, from a caption such as "pets cat 12 a"."""
    name, classname, _, _ = text.split()
    return name, classname


def test_each_source_gives_its_share_of_its_own_rows(data: Data):
    for batch in draw(data, steps=20):
        found = [source(text) for text in batch.texts]
        assert {name for name, _ in found[:2]} == {"pool"}
        assert set(found[2:6]) <= {("birds", "cat"), ("birds", "dog")}
        assert set(found[6:]) <= {("pets", "cat"), ("birds", "owl"), ("pets", "dog")}
    buffered = {source(text) for batch in draw(data, steps=20) for text in batch.texts[6:]}
    assert len(buffered) == 3


def test_the_first_task_has_no_buffer(data: Data):
    names = Counter(source(text)[0] for batch in draw(data, task=1) for text in batch.texts)
    assert names == {"pool": 6 * 3, "pets": 6 * 5}


def test_new_samples_cycle_through_all_images(data: Data):
    seen = [text[:-2] for batch in draw(data, mixture=Mixture(), steps=10, augment="none") for text in batch.texts]
    for start in (0, 20, 40, 60):
        assert len(set(seen[start : start + 20])) == 20
    assert seen[:20] != seen[20:40]


def test_all_captions_of_a_row_are_used_and_belong_to_its_image(data: Data):
    pictures: dict[str, set[bytes]] = {}
    captions = set()
    for batch in draw(data, steps=30, augment="none"):
        for image, text in zip(batch.images, batch.texts, strict=True):
            pictures.setdefault(text[:-2], set()).add(image.numpy().tobytes())
            captions.add(text[-1])
    assert captions == {"a", "b"}
    assert {len(images) for images in pictures.values()} == {1}


def test_images_are_cropped_anew_each_time(data: Data):
    seen: dict[str, set[bytes]] = {}
    for batch in draw(data, mixture=Mixture(), steps=20):
        assert batch.images.shape == (8, 3, 16, 16)
        for image, text in zip(batch.images, batch.texts, strict=True):
            seen.setdefault(text[:-2], set()).add(image.numpy().tobytes())
    assert min(len(images) for images in seen.values()) > 1


def test_images_of_any_size_fit(make_dataset: Make):
    sizes = [(90, 40), (16, 16), (20, 70)]
    mixed = [Row(picture(i, sizes[i % 3]), ("text",), 0, "") for i in range(9)]
    data = Data((make_dataset("pets", mixed),), (), None)
    for augment in ("none", "crop"):
        (batch, again) = (draw(data, 1, Mixture(), steps=1, augment=augment)[0] for _ in range(2))
        assert batch.images.shape == (8, 3, 16, 16)
        assert torch.equal(batch.images, again.images)


def test_a_pool_needs_no_classes(data: Data, make_dataset: Make):
    captioned = [row._replace(captions=(f"web page {row.key} a",), label=-1) for row in rows(20, 500)]
    pool = make_dataset("web", captioned, kind="captions", classes=(), templates=())
    with_pool = Data(data.adaptation, (), pool)
    seen = [text for batch in draw(with_pool, steps=20) for text in batch.texts[:2]]
    assert sorted(set(seen[:20])) == sorted(row.captions[0] for row in captioned)
    assert seen[20:] != seen[:20]


@pytest.mark.parametrize("augment", ["none", "crop"])
def test_loaders_change_nothing(make_dataset: Make, augment: str):
    mixed = [Row(picture(i, (40 + i % 7, 30)), (f"text {i}",), i % 3, "") for i in range(200)]
    data = Data((make_dataset("pets", mixed),), (), None)
    options = {"batch_size": 64, "augment": augment, "mixture": Mixture()}
    alone = draw(data, 1, **options)
    for loaders in (1, 3):
        assert same(alone, draw(data, 1, **options, loaders=loaders))
        assert same(alone[4:], draw(data, 1, **options, loaders=loaders, start_step=4))


@pytest.mark.parametrize("buffer_size", [1, 7, 29])
def test_a_bounded_buffer_is_a_fixed_part_of_earlier_tasks(data: Data, buffer_size: int):
    mixture = REPLAY.model_copy(update={"buffer_size": buffer_size})

    def buffered(task: int, seed: int = 0) -> set[str]:
        drawn = draw(data, task, mixture, steps=150, seed=seed)
        return {text[:-2] for batch in drawn for text in batch.texts[6:]}

    remembered = buffered(3)
    assert len(remembered) == buffer_size  # of 10 pets dogs, 10 birds owls and 10 pets cats
    assert {text for text in remembered if text.startswith("pets cat")} <= buffered(2)
    assert remembered != buffered(3, seed=1)


def test_a_bounded_buffer_is_uniform_over_samples(data: Data):
    mixture = REPLAY.model_copy(update={"buffer_size": 6})
    found = Counter(
        source(text)
        for seed in range(60)
        for text in {
            text[:-2] + " a" for batch in draw(data, 3, mixture, steps=12, seed=seed) for text in batch.texts[6:]
        }
    )
    assert len(found) == 3
    assert max(found.values()) < 1.5 * min(found.values())


def test_a_buffer_with_room_for_all_is_unbounded(data: Data):
    assert same(draw(data, 3), draw(data, 3, REPLAY.model_copy(update={"buffer_size": 30})))


def test_nothing_to_draw_from_is_told_at_once(data: Data, make_dataset: Make):
    empty = Data((make_dataset("pets", []), make_dataset("birds", [])), (), None)
    with pytest.raises(UserError) as caught:
        draw(empty, batch_size=9, world_size=2)
    assert [fault.split(":")[1] for fault in caught.value.faults] == [
        " pretraining",
        " update",
        " buffer",
        " 9 cannot be split over 2 workers; use a multiple of that",
    ]


def test_a_broken_image_is_named(make_dataset: Make):
    broken = [*rows(3), Row(picture(0)[:-30], ("text",), 0, ""), Row(b"text", ("text",), 0, "")]
    data = Data((make_dataset("pets", broken),), (), None)
    for loaders in (0, 2):
        with pytest.raises(CellError, match=r"pets train: row [34]: not a readable image"):
            draw(data, 1, Mixture(), loaders=loaders)
