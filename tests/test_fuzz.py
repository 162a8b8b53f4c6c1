"""Whatever bytes a file holds, who reads it gets a result or one line: never another error, or more time and memory."""

import hashlib
import io
import json
import random
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from archives import tar
from fomo_root import build_root
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutate import mutated
from pictures import picture, rows
from PIL import Image
from safetensors.torch import save, save_file

from time_ray import config
from time_ray.clip.weight_files import read_weights
from time_ray.core.errors import CellError, StoreError, UserError
from time_ray.core.experiment import Experiment
from time_ray.core.preprocessing import Resizing
from time_ray.data.dataset import CARD, Dataset, write_dataset
from time_ray.data.decoding import decode
from time_ray.data.images import Decoded, fit
from time_ray.data.importers import tars
from time_ray.data.importers.fomo import import_fomo
from time_ray.data.importers.image_checks import image_fault, pillow_quiet
from time_ray.data.importers.parquet import import_parquet
from time_ray.data.importers.sample_faults import read_report
from time_ray.data.importers.webdataset import import_webdataset
from time_ray.data.stream_file import in_terms_of, read_stream
from time_ray.merging.errors import MergeError
from time_ray.merging.opening import open_model
from time_ray.store.files import Files
from time_ray.store.recipe_index import RecipeIndex
from time_ray.store.sealed import sealed
from time_ray.store.store import Store
from time_ray.store.verify_store import verify

MOST_SECONDS = 5.0  # of one input, on a machine that has other things to do
GROWTH_MB = 600  # of all inputs of a parser
KEY = "ab" * 16
INPUTS = 2000  # of all parsers together
NIGHTLY = 50_000
EXPERIMENT = """
name: tiny
init: [zs, {name: ema, weight: 0.25}]
deploy: &d [ft, all]
technique: [average, {name: ties, density: 0.2}]
model: mini-tiny
budget: 4 steps
seed: [0, 1]
data: {adaptation: [mini:chess, mini:flags], evaluation: mini:textures}
stream: {tasks: 2, order: random}
training: {lr: 1e-3, batch_size: 8, mixture: {new: 1, replay: 1}}
scoring: {subset: 0.5, templates: ["a photo of a {}."], lengths: [0.5]}
run: {trials: 2, by_model: {mini-tiny: {workers: 1}}}
about: "θ, é, 2026-01-01 and 0x1f"
"""


class Parser(NamedTuple):
    """Who reads bytes of others: real files to start from, what reads them, and how many inputs it gets."""

    samples: Sequence[bytes]
    read: Callable[[bytes], object]
    share: int  # of every 100 inputs


def one_line(error: Exception) -> bool:
    lines = getattr(error, "faults", None) or (str(error),)
    return all(line and len(line.splitlines()) == 1 for line in lines)


def tried(read: Callable[[bytes], object], data: bytes) -> str | None:
    """What is wrong with how these bytes are refused, if anything is."""
    started = time.monotonic()
    try:
        read(data)
    except (UserError, StoreError, CellError, MergeError) as error:
        if not one_line(error):
            return f"not one line: {error!r}"
    except Exception as error:  # noqa: BLE001 that is what is looked for
        return f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - started
    return f"{seconds:.1f} s" if seconds > MOST_SECONDS else None


def file_reader(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Reads the bytes as that file."""

    def act(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return act


def yaml_parser(folder: Path) -> Parser:
    return Parser(
        [EXPERIMENT.encode()], file_reader(folder / "tiny.yaml", partial(config.draft, overrides=["seed=1"])), 12
    )


def stream_parser(folder: Path) -> Parser:
    known = {"cifar100": ["a", "b"], "x": ["c"]}

    def read(path: Path) -> object:
        return in_terms_of(known, read_stream(path), str(path))

    samples = [json.dumps([f"CIFAR100+++{name}" for name in "abcdé"]).encode(), b'["x+++c",\n"x+++c"]']
    return Parser(samples, file_reader(folder / "stream.json", read), 10)


def read_dataset(folder: Path) -> None:
    dataset = Dataset.open(folder)
    for name in dataset.card.splits:
        split = dataset.split(name)
        assert len(split.labels) == len(split)
        list(split.rows())
        split.captions(range(min(2, len(split))))
        Decoded(split, Resizing(16)).take(range(min(2, len(split))))


def dataset_in(folder: Path) -> tuple[Path, Path]:
    """A dataset whose card seals nothing, so that all that it names is looked at: its card, and a shard."""
    write_dataset(
        folder,
        name="pets",
        kind="classification",
        classes=("cat", "dog", "owl"),
        templates=("a {}.",),
        splits={"train": rows(6), "test": rows(3)},
    )
    card = json.loads((folder / CARD).read_text()) | {"seal": ""}
    card["splits"] = {name: info | {"footers": []} for name, info in card["splits"].items()}
    (folder / CARD).write_text(json.dumps(card))
    return folder / CARD, folder / card["splits"]["train"]["shards"][0]


def card_parser(folder: Path) -> Parser:
    card, _ = dataset_in(folder)
    return Parser([card.read_bytes()], file_reader(card, lambda _: read_dataset(folder)), 12)


def shard_parser(folder: Path) -> Parser:
    _, shard = dataset_in(folder)
    return Parser([shard.read_bytes()], file_reader(shard, lambda _: read_dataset(folder)), 10)


def entry_parser(folder: Path, *, resealed: bool) -> Parser:
    """Entries as they are, and such as somebody has sealed anew."""
    made = Store(Files(str(folder / "made")))
    made.put(KEY, {"w": torch.ones(2)}, {"recipe": {"kind": "trained", "key": KEY}, "seconds": {"train": 1.0}})
    made.record("scores", KEY, {"accuracy": {"a": 12.5}, "seconds": {"eval": 1.0}, "distance": 0.1})
    bodies = [file.path for kind in ("weights", "scores") for file in made.files.list(kind, recursive=True)]
    samples = [Path(path).read_bytes() for path in bodies]
    if resealed:
        samples = [data.rsplit(b"\n", 2)[0] for data in samples]
    victim = folder / "victim.json"
    victim.write_text("years of work")

    def read(data: bytes) -> None:
        if resealed:
            data = data + b"\n" + hashlib.sha256(data).hexdigest().encode() + b"\n"
        store = Store(Files(str(folder / "root")))
        for kind in ("weights", "scores"):
            store.files.write(data, kind, KEY[:2], KEY, f"planted-{len(data)}.json")
            store.entry(kind, KEY)
        store.get(KEY)
        store.arrays(KEY)
        RecipeIndex(store).show(KEY)
        list(verify(store.files))
        shutil.rmtree(folder / "root")
        assert victim.read_text() == "years of work"

    return Parser(samples, read, 6)


def parquet_parser(folder: Path) -> Parser:
    columns = {
        "image": [{"bytes": picture(number), "path": "x"} for number in range(4)],
        "label": ["cat", "dog", "cat", "dog"],
        "captions": [["a", "b"], [], None, ["c"]],
    }
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)

    def read(path: Path) -> None:
        try:
            import_parquet(path.parent, folder / "out", strict=False)
            read_dataset(folder / "out")
        finally:
            shutil.rmtree(folder / "out", ignore_errors=True)

    (folder / "in").mkdir()
    return Parser([stream.getvalue()], file_reader(folder / "in" / "train.parquet", read), 6)


def tar_parser(folder: Path) -> Parser:
    members = {"a/1.png": picture(1), "a/1.txt": b"a cat", "a/2.png": picture(2), "a/2.json": b'{"caption": "a dog"}'}
    plain, long = tar(members), tar({**members, "x" * 200 + ".png": picture(3)})

    def read(path: Path) -> None:
        tars.index(path)
        list(tars.contents(path))

    return Parser([plain, long], file_reader(folder / "pool.tar", read), 10)


def caption_parser(folder: Path) -> Parser:
    """What stands beside an image in a tar that is whole."""

    def read(data: bytes) -> None:
        try:
            members = {"0.png": picture(0), "0.txt": b"a", "1.png": picture(1), "1.txt": data, "2.png": picture(2)}
            (folder / "pool.tar").write_bytes(tar({**members, "2.json": data}))
            import_webdataset(folder / "pool.tar", folder / "out", strict=False)
        finally:
            shutil.rmtree(folder / "out", ignore_errors=True)

    return Parser([b"a photo of a cat", b'{"captions": ["a", "b"]}', b'{"caption": "\\ud83d\\ude00"}'], read, 4)


def fomo_parser(folder: Path, file: str) -> Parser:
    """The benchmark's metadata: class names, and what it says of images."""
    root = build_root(folder / "root", None, names=("monkeys10",), classes=2)

    def read(_: Path) -> None:
        try:
            import_fomo(root.images, folder / "out", info=root.info, dataset="monkeys10", strict=False)
        finally:
            shutil.rmtree(folder / "out", ignore_errors=True)

    path = root.info / file
    return Parser([path.read_bytes()], file_reader(path, read), 4)


def image_parser(_: Path) -> Parser:
    image = Image.open(io.BytesIO(picture(1)))
    grey, clear = image.convert("L"), image.convert("RGBA")
    samples = []
    for form, some in (("PNG", clear), ("JPEG", image), ("WEBP", clear), ("GIF", grey), ("BMP", image), ("PPM", image)):
        stream = io.BytesIO()
        some.save(stream, form, **({"exif": Image.Exif()} if form == "JPEG" else {}))
        samples.append(stream.getvalue())
    for compression in (None, "tiff_lzw", "jpeg"):
        stream = io.BytesIO()
        Image.fromarray(np.asarray(image)).save(stream, "TIFF", compression=compression)
        samples.append(stream.getvalue())

    def read(data: bytes) -> None:
        with pillow_quiet():
            image_fault(data)
            try:
                fit(decode(data), Resizing(64))
            except ValueError as error:
                raise CellError(str(error)) from error

    return Parser(samples, read, 16)


def weights_parser(folder: Path) -> Parser:
    tensors = {
        "a": torch.ones(3, 2),
        "b": torch.arange(4, dtype=torch.int64),
        "c": torch.zeros((), dtype=torch.bfloat16),
    }
    stream = io.BytesIO()
    torch.save({"state_dict": tensors}, stream)
    samples = [save(tensors, {"format": "pt"}), save({"a": torch.ones(1)}), stream.getvalue()]
    return Parser(samples, file_reader(folder / "model.bin", read_weights), 12)


def index_parser(folder: Path) -> Parser:
    """The index of a sharded set, and the configuration of an adapter."""
    save_file({"a": torch.ones(2)}, folder / "model-1.safetensors")
    index = {"metadata": {}, "weight_map": {"a": "model-1.safetensors"}}
    return Parser([json.dumps(index).encode()], file_reader(folder / "model.safetensors.index.json", read_weights), 4)


def adapter_parser(folder: Path) -> Parser:
    save_file({"w.weight": torch.ones(4, 4)}, folder / "base.safetensors")
    factors = {
        "base_model.model.w.lora_A.weight": torch.ones(2, 4),
        "base_model.model.w.lora_B.weight": torch.ones(4, 2),
    }
    save_file(factors, folder / "adapter_model.safetensors")
    base = open_model(folder / "base.safetensors", "base")
    written = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {"w": 3}, "target_modules": ["w"]}

    def read(path: Path) -> None:
        model = open_model(path.parent, "adapter", base)
        for entry in model.entries:
            model.read(entry, 0, entry.size)

    return Parser([json.dumps(written).encode()], file_reader(folder / "adapter_config.json", read), 4)


def report_parser(folder: Path) -> Parser:
    line = {"kind": "odd", "split": "train", "where": "x", "detail": "y", "kept": False, "files": 1, "is_note": False}
    read = file_reader(folder / "report.jsonl", lambda path: read_report(path.parent))
    return Parser([json.dumps(line).encode() + b"\n"], read, 4)


PARSERS: dict[str, Callable[[Path], Parser]] = {
    "experiment": yaml_parser,
    "stream": stream_parser,
    "card": card_parser,
    "shard": shard_parser,
    "entry": partial(entry_parser, resealed=False),
    "entry sealed anew": partial(entry_parser, resealed=True),
    "parquet": parquet_parser,
    "tar": tar_parser,
    "captions": caption_parser,
    "class names": partial(fomo_parser, file="MONKEYS10_classnames.json"),
    "metadata": partial(fomo_parser, file="MONKEYS10_test.json"),
    "image": image_parser,
    "weights": weights_parser,
    "index": index_parser,
    "adapter": adapter_parser,
    "report": report_parser,
}


def fuzz(folder: Path, name: str, inputs: int) -> list[str]:
    """What was wrong with how mutated files were refused, each with the number that makes the file again."""
    parser = PARSERS[name](folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = []
    for number in range(inputs * parser.share // 100):
        data = mutated(parser.samples, random.Random(f"{name} {number}"))
        if fault := tried(parser.read, data):
            found.append(f"{name} {number}: {fault}")
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return [*found, *([f"{growth:.0f} MB more"] if growth > GROWTH_MB else [])]


@pytest.mark.parametrize("name", PARSERS)
def test_real_files_are_read(tmp_path: Path, name: str) -> None:
    parser = PARSERS[name](tmp_path)
    for data in parser.samples:
        parser.read(data)


@pytest.mark.filterwarnings("ignore")  # libraries' own, of what is damaged
@pytest.mark.parametrize("name", PARSERS)
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    assert fuzz(tmp_path, name, INPUTS) == []


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PARSERS)
def test_many_damaged_files(tmp_path: Path, name: str) -> None:
    assert fuzz(tmp_path, name, NIGHTLY) == []


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("digest", "bytes", "payload", "accuracy", "seconds", "distance", "curve", "recipe", "signature")
FREELY = settings(
    max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def a_card(tmp_path_factory: pytest.TempPathFactory) -> Parser:
    return card_parser(tmp_path_factory.mktemp("card"))


@FREELY
@given(st.sampled_from(["name", "kind", "classes", "templates", "splits", "digest", "seal", "decoding"]), _VALUES)
def test_any_value_on_a_card(a_card: Parser, field: str, value: Any) -> None:
    (card,) = a_card.samples
    assert tried(a_card.read, json.dumps(json.loads(card) | {field: value}).encode()) is None


@FREELY
@given(st.sampled_from([*Experiment.model_fields, "x"]), _VALUES)
def test_any_value_in_an_experiment(tmp_path_factory: pytest.TempPathFactory, key: str, value: Any) -> None:
    path = tmp_path_factory.mktemp("yaml") / "tiny.yaml"
    path.write_text(f"{EXPERIMENT}\n{key}: {json.dumps(value)}\n", encoding="utf-8")
    assert tried(lambda _: config.draft(path), b"") is None


@FREELY
@given(
    st.sampled_from(["weights", "scores", "sweeps"]),
    st.dictionaries(
        st.sampled_from(FIELDS),
        _VALUES,
    ),
)
def test_any_value_in_an_entry(tmp_path_factory: pytest.TempPathFactory, kind: str, entry: dict[str, Any]) -> None:
    store = Store(Files(str(tmp_path_factory.mktemp("store"))))
    data = sealed(json.loads(json.dumps(entry).replace("Infinity", "1").replace("NaN", "1")))
    store.files.write(data, kind, KEY[:2], KEY, f"planted-{len(data)}.json")

    def read(_: bytes) -> None:
        store.entry(kind, KEY)
        store.get(KEY)
        store.arrays(KEY)
        list(verify(store.files))

    assert tried(read, b"") is None


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parser]:
    names = ("image", "tar", "weights", "stream", "experiment")
    return {name: PARSERS[name](tmp_path_factory.mktemp(name)) for name in names}


@FREELY
@given(st.binary(max_size=400))
def test_any_bytes(some: dict[str, Parser], data: bytes) -> None:
    assert {name: fault for name, parser in some.items() if (fault := tried(parser.read, data))} == {}
