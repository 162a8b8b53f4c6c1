"""The table of FoMo-in-Flux (arXiv:2408.14471): its 63 datasets, and how each lies on disk.

Class lists and captions are the benchmark's metadata: `NAME_classnames.json`, `NAME_SPLIT.json`; NAME is the folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

Role = Literal["adaptation", "evaluation", "extra"]

PHOTO = "A photo of a {}."


@dataclass(frozen=True, kw_only=True)
class FomoDataset:
    """A dataset of the benchmark. `sizes` are its images by split, `written` its splits as files are named."""

    handle: str  # as in lower-case stream files and in experiments
    folder: str  # as in upper-case stream files, class lists and image folders
    role: Role
    kind: Literal["classification", "retrieval"] = "classification"
    template: str | None = PHOTO  # class prompt; None: scored by its captions
    resized: bool = False  # whether its images are resized to 224 px before they are used
    sizes: Mapping[str, int] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)
    spaced: bool = False  # whether underscores in class names are spaces
    has_classes: bool = True

    @property
    def splits(self) -> Mapping[str, str]:
        """For each split the word that the benchmark's files have for it."""
        return {split: self.written.get(split, split) for split in self.sizes or ("train", "test")}

    def classname(self, written: str) -> str:
        """The class that the benchmark's files write like that."""
        return written.replace("_", " ") if self.spaced else written


def _learnt(
    handle: str,
    folder: str,
    train: int,
    test: int,
    template: str = PHOTO,
    *,
    resized: bool = False,
    spaced: bool = False,
    written: Mapping[str, str] = MappingProxyType({}),
) -> FomoDataset:
    return FomoDataset(
        handle=handle,
        folder=folder,
        role="adaptation",
        template=template,
        resized=resized,
        sizes={"train": train, "test": test},
        written=written,
        spaced=spaced,
    )


def _held_out(handle: str, folder: str, test: int, template: str = PHOTO, *, resized: bool = False) -> FomoDataset:
    return FomoDataset(
        handle=handle, folder=folder, role="evaluation", template=template, resized=resized, sizes={"test": test}
    )


def _type_of(what: str) -> str:
    return f"A photo of a {{}}, a type of {what}."


_SIGN = 'A centered photo of a "{}" traffic sign.'

_ADAPTATION = (
    _learnt("ai2diagrams", "AI2DIAGRAMS", 2720, 681, resized=True),
    _learnt("artbench10", "ARTBENCH10", 47531, 11883, "A painting of the artist {}."),
    _learnt("birdsnap", "BIRDSNAP", 31905, 7977, "A photo of the bird {}.", resized=True),
    _learnt("cifar100", "CIFAR100", 50000, 10000),
    _learnt("clevr", "CLEVR", 55931, 13983, "A photo of synthetic shapes, with {}.", resized=True),
    _learnt("clrs", "CLRS", 13525, 1475, "A satellite image of a {}."),
    _learnt("country211", "COUNTRY211", 31650, 21100, "A photo representing the country of {}.", resized=True),
    _learnt("cub200", "CUB200", 5994, 5794, _type_of("bird")),
    _learnt("df20mini", "DF20MINI", 32724, 3637, "A photo of the fungi {}.", resized=True),
    _learnt("dollarstreet", "DOLLARSTREET", 13555, 4103, resized=True),
    _learnt("domainnet_clipart", "DOMAINNET_CLIPART", 33525, 14604, "A clipart of a {}.", resized=True),
    _learnt("domainnet_infograph", "DOMAINNET_INFOGRAPH", 36023, 15582, "An infograph of a {}.", resized=True),
    _learnt("domainnet_painting", "DOMAINNET_PAINTING", 50416, 21850, "A painting of a {}.", resized=True),
    _learnt("domainnet_sketch", "DOMAINNET_SKETCH", 48212, 20916, "A sketch of a {}.", resized=True),
    _learnt("dsprites", "DSPRITES", 75000, 25000, "A black-and-white photo of a {}."),
    _learnt("dtd", "DTD", 1880, 1880, "A photo of a {} texture."),
    _learnt("fgvcaircraft", "FGVCAircraft", 3334, 3333, _type_of("aircraft"), resized=True),
    _learnt("flowers102", "FLOWERS102", 6149, 1020, _type_of("flower")),
    _learnt("fru92", "FRU92", 55814, 9200, _type_of("fruit"), resized=True),
    FomoDataset(
        handle="fscoco",
        folder="FSCOCO",
        role="adaptation",
        kind="retrieval",
        template=None,
        sizes={"train": 7105, "test": 1777},
    ),
    _learnt(
        "inaturalist2021",
        "iNATURALIST2021",
        125000,
        25000,
        resized=True,
        written={"train": "train_mini", "test": "val"},
    ),
    _learnt(
        "isicmelanoma",
        "ISICMELANOMA",
        2245,
        562,
        "A close-up photo of human skin with a mole exhibiting {}.",
        resized=True,
    ),
    _learnt("mitstates", "MITSTATES", 43002, 10751),
    _learnt("mtsd", "MTSD", 59978, 8737, _SIGN, written={"test": "val"}),
    _learnt("mvtecad_adapt", "MVTECAD_Adapt", 2903, 726, "A close-up photo of a {}.", resized=True),
    _learnt("mvtecad_eval", "MVTECAD_Eval", 1380, 345, "A close-up photo of a {}.", resized=True),
    _learnt("objectnet", "OBJECTNET", 40134, 10000, resized=True, spaced=True),
    _learnt("obsc_animals", "OBSC_ANIMALS", 17000, 4238, "A photo of the obscure animal {}."),
    _learnt("obsc_things", "OBSC_THINGS", 19128, 4758, "A photo of the obscure thing {}."),
    _learnt("openimages", "OPENIMAGES", 115333, 8593, resized=True),
    _learnt("patternnet", "PATTERNNET", 26600, 3800, "A satellite image of a {}."),
    _learnt("places365", "PLACES365", 120231, 36499),
    _learnt("plantvillage", "PLANTVILLAGE", 43444, 10681, "A close-up photo of a {}."),
    _learnt("quilt", "QUILT", 95862, 23966, "A histopathology photo depicting {} pathologies.", resized=True),
    _learnt("resisc45", "RESISC45", 18900, 6300, "A satellite image of {}."),
    _learnt("shapes3d", "SHAPES3D", 75000, 25000, "A photo of a synthetic {}."),
    _learnt("snake_clef", "SNAKECLEF", 151031, 14117, "A photo of a {} snake.", resized=True),
    _learnt("sun397", "SUN397", 15880, 19850, resized=True),
    _learnt("synthclip106", "SynthCLIP106", 84800, 13886),
    _learnt("veg200", "VEG200", 61117, 20000, _type_of("vegetable"), resized=True),
    _learnt("zappos50k", "ZAPPOS50k", 37829, 9458, "A photo of {} shoes."),
)

_EVALUATION = (
    _held_out("caltech101", "CALTECH101", 2651, resized=True),
    _held_out("caltech256", "CALTECH256", 9300, resized=True),
    _held_out("cars196", "CARS196", 8041, _type_of("car"), resized=True),
    _held_out("cifar10", "CIFAR10", 10000),
    _held_out("domainnet_quickdraw", "DOMAINNET_QUICKDRAW", 25875, "A quickdraw of a {}.", resized=True),
    _held_out("eurosat", "EuroSAT", 8100, "A centered satellite photo of a {}."),
    _held_out("fashionmnist", "FashionMNIST", 10000, "A black-and-white photo of a {}, a type of clothing."),
    FomoDataset(
        handle="flickr30k",
        folder="FLICKR30K",
        role="evaluation",
        kind="retrieval",
        template=None,
        sizes={"test": 1000},
        has_classes=False,
    ),
    _held_out("food101", "Food101", 25250, _type_of("food"), resized=True),
    _held_out("gtsrb", "GTSRB", 8005, _SIGN),
    _held_out("imagenet", "IMAGENET", 50000, resized=True),
    _held_out("imagenet_a", "IMAGENET_A", 7500, resized=True),
    _held_out("imagenet_d", "IMAGENET_D", 4835, resized=True),
    _held_out("imagenet_r", "IMAGENET_R", 30000, resized=True),
    _held_out("imagenet_s", "IMAGENET_S", 50889, resized=True),
    _held_out("imagenet_v2", "IMAGENET_V2", 10000, resized=True),
    _held_out("mnist", "MNIST", 10000, 'A black-and-white photo of the number: "{}".'),
    _held_out("monkeys10", "MONKEYS10", 272, _type_of("monkey"), resized=True),
    FomoDataset(
        handle="mscoco",
        folder="MSCOCO",
        role="evaluation",
        kind="retrieval",
        template=None,
        resized=True,
        sizes={"test": 5000},
        has_classes=False,
    ),
    _held_out("oxford_pets", "OXFORDPETS", 3669, _type_of("pet")),
    _held_out("stl10", "STL10", 8000),
    _held_out("svhn", "SVHN", 26032, 'A photo of the number: "{}".'),
)

_EXTRA = (
    FomoDataset(handle="medmnist_derma", folder="MedMNISTderma", role="extra"),
    FomoDataset(handle="medmnist_organc", folder="MedMNISTorganc", role="extra"),
    FomoDataset(handle="medmnist_organs", folder="MedMNISTorgans", role="extra"),
    FomoDataset(handle="retinopathy", folder="RETINOPATHY", role="extra"),
)

DATASETS: Mapping[str, FomoDataset] = {entry.handle: entry for entry in (*_ADAPTATION, *_EVALUATION, *_EXTRA)}
HANDLE_OF: Mapping[str, str] = {entry.folder: entry.handle for entry in DATASETS.values()}
