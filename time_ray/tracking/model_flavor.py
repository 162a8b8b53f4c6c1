"""What makes a model's folder one that MLflow loads: MLmodel, signature, input example, requirements and code."""

import re
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from time_ray.serving.model_folder import WEIGHTS, describe, predictor_code
from time_ray.serving.served import Served

NEEDED = ("mlflow", "numpy", "open_clip_torch", "pillow", "torch", "torchvision")
EXAMPLE_SIDE = 8  # pixels


def write_model(folder: Path, served: Served, home: Path | None = None, *, model_id: str | None = None) -> None:
    """The empty folder is a model for MLflow and for open_clip.

    Args:
        folder: where to write.
        served: the model.
        home: where the folder will lie, if on this machine; see `describe`.
        model_id: of the logged model that it is of.

    """
    write_flavor(folder, served, model_id)
    (folder / WEIGHTS).write_bytes(served.weights.data)
    describe(served, folder, home=home)


def write_flavor(folder: Path, served: Served, model_id: str | None = None) -> None:
    """The empty folder has what MLflow needs besides the model; nothing is loaded, or asked of a network, for it.

    Inputs have no schema: a schema of columns refuses arrays, and one of tensors refuses paths and bytes.
    """
    import mlflow.pyfunc
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    texts = [ParamSpec(name, "string", [], (-1,)) for name in ("classes", "templates")]
    signature = ModelSignature(
        outputs=Schema([ColSpec("float", name) for name in served.columns]),
        params=ParamSchema([*texts, ParamSpec("dataset", "string", None)]),
    )
    module, code = predictor_code()
    ramp = np.linspace(0, 255, EXAMPLE_SIDE, dtype=np.uint8)
    example: Any = np.stack(np.broadcast_arrays(ramp, ramp[:, None], np.uint8(128)), axis=-1)
    with TemporaryDirectory() as scratch:
        file = Path(scratch, f"{module}.py")
        file.write_bytes(code)
        mlflow.pyfunc.save_model(
            str(folder),
            loader_module=module,
            code_paths=[str(file)],
            mlflow_model=Model(model_id=model_id),
            signature=signature,
            input_example=example,
            pip_requirements=requirements(),
        )


@cache
def requirements() -> list[str]:
    """What loading a model needs, in the versions that time_ray itself takes."""
    found = {name: name for name in NEEDED}
    with suppress(PackageNotFoundError):
        named = {re.split(r"[^\w.-]", line)[0]: line for line in requires("time_ray") or () if "extra ==" not in line}
        found |= {name: line for name, line in named.items() if name in found}
    return [*found.values(), "pandas"]
