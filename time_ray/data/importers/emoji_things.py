"""Emoji as things that several styles draw: which they are, when each was released, and which drawings are of it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from time_ray.data.importers.npm_packages import Package

THINGS = Package(
    "emoji-datasource",
    "16.0.0",
    "sha512-/qHKqK5Nr3+8zhgO6kHmF43Fm5C8HNn0AaFRIpgw8HF3+uF0Vfc8jgLI1ZQS5ba1vBzksS8NBCjHejwLb2D/Sg==",
)
STYLES: Mapping[str, Package] = MappingProxyType(
    {
        "noto": Package(
            "@iconify-json/noto",
            "1.2.9",
            "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        ),
        "noto_v1": Package(
            "@iconify-json/noto-v1",
            "1.2.5",
            "sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        ),
        "twemoji": Package(
            "@iconify-json/twemoji",
            "1.2.5",
            "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        ),
        "openmoji": Package(
            "@iconify-json/openmoji",
            "1.2.29",
            "sha512-vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
        ),
        "fluent_emoji_flat": Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        ),
        "emojione_v1": Package(
            "@iconify-json/emojione-v1",
            "1.2.3",
            "sha512-UjI2VQEXVtGlPBvQuxEizro7QCgBcJDOYwKUupquvvZ8UV4xOlvm45IU82JYWegiAWLerY79gFLMZ26U6Ms+ww==",
        ),
        "fxemoji": Package(
            "@iconify-json/fxemoji",
            "1.2.2",
            "sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        ),
    }
)
YEARS: Mapping[str, int] = MappingProxyType(  # of each version of Emoji; before 1.0 those of Unicode
    {
        "0.6": 2010,
        "0.7": 2014,
        "1.0": 2015,
        "2.0": 2015,
        "3.0": 2016,
        "4.0": 2016,
        "5.0": 2017,
        "11.0": 2018,
        "12.0": 2019,
        "12.1": 2019,
        "13.0": 2020,
        "13.1": 2020,
        "14.0": 2021,
        "15.0": 2022,
        "15.1": 2023,
        "16.0": 2024,
    }
)
NOT_DRAWN_APART = frozenset({"Component", "Flags"})  # parts of others, and what differs by country alone
JOINED = "200d"  # variants of a thing: of persons by gender, of families by members
SHAPE = "fe0f"  # says no more than that it is a picture


class Thing(NamedTuple):
    """An emoji, whoever draws it."""

    code: str
    name: str
    category: str
    year: int
    aliases: frozenset[str]


@dataclass(frozen=True)
class Icons:
    """The drawings of a style by their names, as iconify packs them; some say of which code points they are."""

    title: str
    author: str
    licence: str
    address: str
    bodies: Mapping[str, str]  # SVG
    by_code: Mapping[str, str]

    @classmethod
    def of(cls, icons: Mapping[str, Any], info: Mapping[str, Any], codes: Mapping[str, str]) -> "Icons":
        """From icons.json, info.json and chars.json of a package."""
        bodies = {name: _svg(icon, icons) for name, icon in icons["icons"].items()}
        for name, alias in icons.get("aliases", {}).items():
            if alias.keys() == {"parent"} and alias["parent"] in bodies:  # others are turned or mirrored
                bodies[name] = bodies[alias["parent"]]
        author, licence = info["author"], info["license"]
        by_code = {_code(code): name for code, name in codes.items()}
        return cls(info["name"], author["name"], licence["title"], licence.get("url", ""), bodies, by_code)


def things_of(listed: Sequence[Mapping[str, Any]]) -> list[Thing]:
    """The things of emoji.json, oldest first; no flags, no parts, and of each thing but one variant."""
    found = [
        Thing(
            _code(entry["unified"]),
            entry["name"].lower(),
            entry["subcategory"].replace("-", " "),
            YEARS[entry["added_in"]],
            frozenset(map(_slug, (entry["name"], *entry["short_names"]))),
        )
        for entry in listed
        if entry["category"] not in NOT_DRAWN_APART and JOINED not in entry["unified"].lower()
    ]
    return sorted(found, key=lambda thing: (thing.year, thing.code))


def matched(things: Sequence[Thing], styles: Mapping[str, Icons]) -> dict[str, dict[str, str]]:
    """For each style the SVG of things by their code, as far as it draws them.

    Styles that say of which code point a drawing is also say what things are called today. Others are matched by name:
    first by these, then by the names of the list, then without hyphens. A drawing is of one thing.
    """
    called: dict[str, set[str]] = {thing.code: set() for thing in things}
    for icons in styles.values():
        for code, name in icons.by_code.items():
            called.get(code, set()).add(name)
    return {
        style: {
            code: icons.bodies[name]
            for code, name in (icons.by_code.items() if icons.by_code else _by_name(things, called, icons))
            if code in called and name in icons.bodies
        }
        for style, icons in styles.items()
    }


def _by_name(things: Sequence[Thing], called: Mapping[str, set[str]], icons: Icons) -> Iterator[tuple[str, str]]:
    squeezed = {_squeezed(name): name for name in sorted(icons.bodies)}
    own = {name: name for name in icons.bodies}
    open_codes, taken = {thing.code for thing in things}, set[str]()
    for table, squeeze in ((own, str), (squeezed, _squeezed)):
        for names_of in (lambda thing: called[thing.code], lambda thing: thing.aliases):
            for thing in things:
                names = (table[name] for name in map(squeeze, sorted(names_of(thing))) if name in table)
                name = next((name for name in names if icons.bodies[name] not in taken), None)
                if thing.code in open_codes and name is not None:
                    open_codes.remove(thing.code)
                    taken.add(icons.bodies[name])
                    yield thing.code, name


def _svg(icon: Mapping[str, Any], icons: Mapping[str, Any]) -> str:
    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names} viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'


def _code(written: str) -> str:
    return "-".join(part for part in written.lower().split("-") if part != SHAPE)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _squeezed(name: str) -> str:
    return name.replace("-", "")
