"""`time-ray manifest`: files for clusters that are made by others."""

from typing import Annotated

import typer

from time_ray.commands.options import Exp, Overrides

app = typer.Typer(help="Print manifests for Kubernetes, and the Dockerfile of their image.", no_args_is_help=True)


@app.command()
def kuberay(
    exp: Exp,
    overrides: Overrides = None,
    image: Annotated[
        str, typer.Option("--image", metavar="IMAGE", help="With time_ray in it; see: time-ray manifest dockerfile.")
    ] = "",
) -> None:
    """Print a KubeRay job (YAML) that runs a sweep on a Ray cluster of its own."""
    from time_ray import api

    print(api.manifest(exp, overrides or (), image), end="")


@app.command()
def dockerfile() -> None:
    """Print a Dockerfile that puts a checkout of time_ray into an image with Ray."""
    from importlib.resources import files

    print(files("time_ray").joinpath("docs/Dockerfile").read_text(encoding="utf-8"), end="")
