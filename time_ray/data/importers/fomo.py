"""Import of FoMo-in-Flux: its metadata, and its images as folders or as tars, become datasets named by handle."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from time_ray.core.errors import UserError, nearest
from time_ray.data.dataset import Card
from time_ray.data.fomo_table import DATASETS, FomoDataset
from time_ray.data.importers import tars
from time_ray.data.importers.captions import captions_of
from time_ray.data.importers.pipeline import DatasetSpec, ImportSettings, import_parts
from time_ray.data.importers.sample_faults import SampleFault
from time_ray.data.importers.samples import ByteRange, Sample, readable, sample_parts
from time_ray.limits import METADATA_BYTES, parse_json, read_at_most

ALL = "all"
_OTHERWISE = f"; give {ALL}, or handles such as cifar100"
INSIDE = "data_lib/00_info"  # of a checkout of the benchmark
JsonObject = Mapping[str, Any]


class _EntryFault(NamedTuple):
    """What is wrong with one sample's entry or image, and whether it is imported nevertheless."""

    kind: str
    detail: str
    kept: bool = False


class _Said(NamedTuple):
    """What the metadata says of one image."""

    captions: tuple[str, ...]
    label: int
    entry_faults: tuple[_EntryFault, ...]


@dataclass(frozen=True)
class _Images:
    """Where the images of a dataset lie: in a folder, or in a tar whose members are listed."""

    where: Path
    members: Mapping[str, ByteRange] | None = None

    def find(self, name: str) -> ByteRange | None:
        """The place of that image; None if there is none."""
        return ByteRange.of_file(self.where / name) if self.members is None else self.members.get(name)


def entries(names: Sequence[str]) -> list[FomoDataset]:
    """The datasets of those handles or folder names; `all` is the whole benchmark. Raises UserError for others."""
    if ALL in names:
        return [entry for entry in DATASETS.values() if entry.role != "extra"]
    handles = {name.lower(): handle for handle in DATASETS for name in (handle, DATASETS[handle].folder)}
    unknown = [name for name in names if name.lower() not in handles]
    UserError.unless_none(
        f"--dataset {name}: none of FoMo-in-Flux{nearest(name.lower(), handles) or _OTHERWISE}" for name in unknown
    )
    return [DATASETS[handle] for handle in dict.fromkeys(handles[name.lower()] for name in names)]


def import_fomo(
    root: str | Path, folder: str | Path, *, info: str | Path, dataset: str, **settings: Unpack[ImportSettings]
) -> Card:
    """Write one dataset of the benchmark into that folder.

    Images are those of root/data/NAME (or root/NAME), else of the tar of that name; where a dataset is resized, the
    variant NAME_SPLIT_224 of an image is taken if there is one. The text of an image is its default_caption, else its
    synthetic_merged_caption. Every image is decoded once. Bad and missing ones are left out, and named in the report.

    Args:
        root: folder with the images.
        folder: as import_parts takes it.
        info: folder of the benchmark's metadata, data_lib/00_info, or a checkout that has it.
        dataset: handle or folder name.
        **settings: how it is run.

    Raises:
        UserError: no such dataset, no images, or metadata that is missing or makes no sense; with every bad sample if
            `strict`.
        StoreError: as import_parts does.

    """
    (entry,) = entries([dataset])
    metadata = _Metadata.read(Path(info), entry)
    images, tar_faults = _images(Path(root), entry)
    parts, faults = sample_parts({split: _samples(metadata, split, images) for split in entry.splits})
    return import_parts(
        folder,
        DatasetSpec(
            entry.handle,
            entry.kind,
            metadata.classes,
            (entry.template,) if entry.template else (),
            tuple(entry.splits),
        ),
        parts,
        [*tar_faults, *faults],
        **settings,
    )


@dataclass(frozen=True)
class _Metadata:
    """What the benchmark says of a dataset."""

    entry: FomoDataset
    classes: tuple[str, ...]
    rows: Mapping[str, JsonObject]

    @classmethod
    def read(cls, info: Path, entry: FomoDataset) -> "_Metadata":
        """All of it. Raises UserError naming each file that is missing or makes no sense."""
        if (info / INSIDE).is_dir():
            info = info / INSIDE
        faults: list[str] = []
        listed = _json(info, [f"{entry.folder}_classnames.json"], list, faults) if entry.has_classes else []
        rows = {split: _json(info, _names(entry, word), dict, faults) for split, word in entry.splits.items()}
        classes = tuple(entry.classname(readable(name)) for name in listed if isinstance(name, str))
        if len(set(classes)) < len(listed):
            faults.append(f"{info / f'{entry.folder}_classnames.json'}: not a list of different names; replace it")
        UserError.unless_none(faults)
        return cls(entry, classes, rows)

    def said(self, row: Any) -> _Said:
        """Captions and class of a sample, by the benchmark's rules, and what is wrong with them."""
        if not isinstance(row, dict):
            return _Said((), -1, (_EntryFault("odd entry", "its entry is no JSON object; correct it"),))
        label, entry_faults = self._label(row)
        for field in ("default_caption", "synthetic_merged_caption"):
            captions, odd = captions_of(row.get(field))
            if odd:
                entry_faults.append(
                    _EntryFault("odd caption", f"{field} is or holds no text; the rest stands for it", kept=True)
                )
            if captions:
                return _Said(captions, label, tuple(entry_faults))
        if self.entry.template is None or label < 0:
            entry_faults.append(_EntryFault("no caption", "no caption; give it a default_caption"))
            return _Said((), label, tuple(entry_faults))
        entry_faults.append(_EntryFault("no caption", "no caption; its class prompt stands for it", kept=True))
        return _Said((self.entry.template.format(self.classes[label]),), label, tuple(entry_faults))

    def _label(self, row: JsonObject) -> tuple[int, list[_EntryFault]]:
        if not self.entry.has_classes:
            return -1, []
        target, written = row.get("target"), row.get("classname")
        if type(target) is not int or not 0 <= target < len(self.classes):
            detail = f"target {target!r} is outside the {len(self.classes)} classes; correct it"
            return -1, [_EntryFault("label outside the classes", detail)]
        name = self.classes[target]
        if isinstance(written, str) and self.entry.classname(written) != name:
            return target, [
                _EntryFault("class name differs", f"{written!r}, but target {target} is {name!r}", kept=True)
            ]
        return target, []


def _names(entry: FomoDataset, word: str) -> list[str]:
    """The files that may describe a split, the better one first."""
    plain = f"{entry.folder}_{word}.json"
    return [f"{entry.folder}_{word}_224.json", plain] if entry.resized else [plain]


def _json(info: Path, names: Sequence[str], kind: type, faults: list[str]) -> Any:
    """What the first of those files that is there holds; something empty, and a fault, if that is not of the kind."""
    path = next((info / name for name in names if (info / name).is_file()), None)
    if path is None:
        faults.append(f"{info}: no {' or '.join(reversed(names))}; it is part of the benchmark's metadata ({INSIDE})")
        return kind()
    try:
        found = parse_json(read_at_most(path, METADATA_BYTES), METADATA_BYTES)
    except (ValueError, OSError) as error:
        faults.append(f"{path}: not valid JSON ({error}); replace it")
        return kind()
    if not isinstance(found, kind) or not found:
        faults.append(f"{path}: not a JSON {kind.__name__} with something in it; replace it")
        return kind()
    return found


def _images(root: Path, entry: FomoDataset) -> tuple[_Images, list[SampleFault]]:
    """Where the images of the dataset are, and what its tar must not hold."""
    for parent in (root / "data", root):
        folder, tar = parent / entry.folder, parent / f"{entry.folder}.tar"
        if folder.is_dir():
            return _Images(folder), []
        if tar.is_file():
            places, tar_faults = tars.index(tar)
            start = f"{entry.folder}/"
            members = {name.removeprefix(start): place for name, place in places.items() if name.startswith(start)}
            faults = [
                SampleFault(kind, "", f"{readable(str(tar))}: {name}", detail) for name, kind, detail in tar_faults
            ]
            return _Images(tar, members), faults
    tried = ", ".join(f"{parent / entry.folder}{end}" for parent in (root / "data", root) for end in ("", ".tar"))
    msg = f"{entry.handle}: no images; there is none of {tried}"
    raise UserError(msg)


def _samples(metadata: _Metadata, split: str, images: _Images) -> Iterator[Sample | SampleFault]:
    entry = metadata.entry
    resized = f"{entry.folder}_{entry.splits[split]}_224/"
    for listed, row in metadata.rows[split].items():
        name = listed.removeprefix(resized)
        where = readable(f"{images.where}: {name}" if images.members is not None else f"{images.where}/{name}")
        said = metadata.said(row)
        entry_faults = list(said.entry_faults)
        place = None
        if not tars.is_inside(name):
            entry_faults.append(_EntryFault("unsafe path", "leads out of its folder; not read"))
        else:
            place = (images.find(resized + name) if entry.resized else None) or images.find(name)
            if place is None:
                entry_faults.append(_EntryFault("missing file", "no such image; add it"))
        for found in entry_faults:
            yield SampleFault(found.kind, split, where, found.detail, found.kept)
        if place is not None and all(found.kept for found in entry_faults):
            yield Sample(place, said.captions, said.label, readable(name), where)
