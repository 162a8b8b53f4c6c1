"""`time-ray merge`: what it is asked, and everything wrong with it at once."""

import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from time_ray.cli import app


def asked(folder, *more):
    for number in range(3):
        save_file({"w": torch.full((4,), float(number))}, folder / f"{number}.safetensors")
    base, *experts = [str(folder / f"{number}.safetensors") for number in range(3)]
    return ["merge", "--base", base, *experts, *more]


def test_parameters_are_read_as_yaml(tmp_path):
    output = tmp_path / "o.safetensors"
    done = CliRunner().invoke(app, asked(tmp_path, "-o", str(output), "--set", "weights=[1, 3]"))
    assert done.exit_code == 0
    assert load_file(output)["w"].tolist() == [1.75] * 4


def test_every_fault_is_told_at_once(tmp_path):
    settings = ["--set", "keep", "--set", "scaling={", "--set", "kepp=1", "--technique", "ties"]
    done = CliRunner().invoke(app, asked(tmp_path, str(tmp_path / "gone"), "-o", str(tmp_path / "no" / "o"), *settings))
    assert [fault.split(";")[0].split("(")[0] for fault in done.exception.faults] == [
        "--set keep: write it as NAME=VALUE, as in --set keep=0.2",
        "--set scaling={: write it as NAME=VALUE, as in --set keep=0.2",
        "ties: unknown parameter 'kepp'",
        f"{tmp_path / 'gone'}: cannot be read ",
        f"{tmp_path / 'no' / 'o'}: its folder does not exist",
    ]
