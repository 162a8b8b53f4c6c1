"""Stream files: JSON lists of `DATASET+++class`, the benchmark's form; its folder names stand for handles."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from time_ray.core.errors import UserError, nearest, some_of
from time_ray.core.home import at_home
from time_ray.core.stream import Concept
from time_ray.data.fomo_table import HANDLE_OF
from time_ray.limits import JSON_BYTES, parse_json, read_at_most

SEPARATOR = "+++"


def read_stream(path: str | Path) -> tuple[Concept, ...]:
    """The concepts of a stream file, as listed. Raises UserError for what is no such file."""
    try:
        entries = parse_json(read_at_most(at_home(path), JSON_BYTES))
    except FileNotFoundError as error:
        msg = f"'{path}': no such file; give a JSON list of DATASET{SEPARATOR}class, or make one by time-ray stream"
        raise UserError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"'{path}': no readable JSON ({str(error).splitlines()[0]}); make it anew by time-ray stream"
        raise UserError(msg) from error
    if not isinstance(entries, list) or not entries:
        msg = f"'{path}': no list with entries; a stream is a JSON list of DATASET{SEPARATOR}class"
        raise UserError(msg)
    odd = [(i, entry) for i, entry in enumerate(entries, 1) if not isinstance(entry, str) or SEPARATOR not in entry]
    if odd:
        msg = f"'{path}': {some_of(f'entry {i} is {entry!r}' for i, entry in odd)}; write DATASET{SEPARATOR}class"
        raise UserError(msg)
    return tuple(Concept(*entry.split(SEPARATOR, 1)) for entry in entries)


def write_stream(path: str | Path, concepts: Sequence[Concept]) -> None:
    """The file holds the concepts in the benchmark's form."""
    text = json.dumps([SEPARATOR.join(concept) for concept in concepts], ensure_ascii=False, indent=0)
    Path(path).write_text(text + "\n", encoding="utf-8")


def in_terms_of(
    known: Mapping[str, Sequence[str]], listed: Sequence[Concept], path: str
) -> tuple[tuple[Concept, ...], list[str]]:
    """The concepts under the names of the known datasets, and what is wrong with them, a line for each kind.

    `known` maps datasets to their classes. A name that is none of them may be the benchmark's folder name of one.
    """
    concepts = tuple(
        c if c.dataset in known else c._replace(dataset=HANDLE_OF.get(c.dataset, c.dataset)) for c in listed
    )
    return concepts, [f"'{path}': {fault}" for fault in (*_strangers(known, concepts), *_repeats(concepts))]


def _strangers(known: Mapping[str, Sequence[str]], concepts: Sequence[Concept]) -> Iterator[str]:
    wanted: dict[str, list[str]] = {}
    for dataset, classname in concepts:
        wanted.setdefault(dataset, []).append(classname)
    for dataset, names in wanted.items():
        if dataset not in known:
            yield f"dataset '{dataset}' ({len(names)} entries) is not in data.adaptation; add it, or leave it out here"
            continue
        classes = set(known[dataset])
        if missing := [name for name in names if name not in classes]:
            hint = nearest(missing[0], known[dataset]) or "; correct the entries, or import the dataset again"
            yield f"dataset '{dataset}' has no class {some_of(map(repr, missing))}{hint}"


def _repeats(concepts: Sequence[Concept]) -> Iterator[str]:
    first: dict[Concept, int] = {}
    twice = []
    for number, concept in enumerate(concepts, 1):
        if first.setdefault(concept, number) != number:
            twice.append(f"entry {number} '{SEPARATOR.join(concept)}' repeats entry {first[concept]}")
    if twice:
        yield f"{some_of(twice)}; a class arrives once"
