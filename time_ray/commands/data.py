"""`time-ray data`: commands on datasets."""

from pathlib import Path
from typing import Annotated

import typer

from time_ray.core.errors import UserError

app = typer.Typer(help="Look at data.", no_args_is_help=True)


@app.command()
def sheet(
    name: Annotated[str, typer.Argument(help="A dataset of the mini world, as in mini:flags.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG file to write.")] = Path("sheet.png"),
    rows: Annotated[int, typer.Option(min=1, help="Rows of images.")] = 6,
) -> None:
    """Write a contact sheet of a dataset: a PNG with captions."""
    from time_ray.learn import mini
    from time_ray.learn.mini.sheet import contact_sheet
    from time_ray.learn.mini.world import WORLD

    known = (*WORLD, mini.POOL)
    plain = name.removeprefix("mini:")
    if plain not in known:
        raise UserError(f"'{name}' is no dataset of the mini world; known: {', '.join(f'mini:{n}' for n in known)}")
    contact_sheet(plain, "train" if plain in {*mini.NAMES_ADAPTATION, mini.POOL} else "test", rows, output)
    print(output)
