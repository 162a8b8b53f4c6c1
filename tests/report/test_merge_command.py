"""`time-ray merge`: what it is asked, everything wrong with it at once, and what ends it early."""

import errno
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from time_ray.cli import app
from time_ray.core.errors import StoreError
from time_ray.merging import merge
from time_ray.merging import output as outputs


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


def test_numbers_are_numbers_as_in_an_experiment(tmp_path):
    output = tmp_path / "o.safetensors"
    more = ["-t", "wudi", "--set", "ridge=1e-3", "--set", "scaling=5e-1"]
    assert CliRunner().invoke(app, asked(tmp_path, "-o", str(output), *more)).exit_code == 0
    done = CliRunner().invoke(app, asked(tmp_path, "-o", str(output), "-t", "wudi", "--set", "ridge=1e-13"))
    assert done.exception.faults == ("wudi: ridge is 1e-13; give a number of at least 1e-12",)


def test_every_fault_is_told_at_once(tmp_path):
    settings = [
        "--set",
        "keep",
        "--set",
        "scaling={",
        "--set",
        "trim=2026-02-30",
        "--set",
        "kepp=1",
        "--technique",
        "ties",
    ]
    done = CliRunner().invoke(app, asked(tmp_path, str(tmp_path / "gone"), "-o", str(tmp_path / "no" / "o"), *settings))
    assert [fault.split(";")[0].split("(")[0] for fault in done.exception.faults] == [
        "--set keep: write it as NAME=VALUE, as in --set keep=0.2",
        "--set scaling={: not YAML: expected the node content, but found '<stream end>'",
        "--set trim=2026-02-30: not YAML: '2026-02-30' is no timestamp",
        "ties: unknown parameter 'kepp'",
        f"{tmp_path / 'gone'}: cannot be read ",
        f"{tmp_path / 'no' / 'o'}: its folder does not exist",
    ]


def test_ids_and_dtype(tmp_path):
    output = tmp_path / "o"
    more = ["--technique", "dare", "--set", "drop=0.5", "--ids", "first,second", "--dtype", "float16"]
    assert CliRunner().invoke(app, asked(tmp_path, "-o", str(output), *more)).exit_code == 0
    base, *experts = [{"w": torch.full((4,), float(number))} for number in range(3)]
    wanted = merge(base, experts, "dare", drop=0.5, ids=["first", "second"], dtype="float16")["w"]
    assert torch.equal(load_file(output)["w"], wanted)
    done = CliRunner().invoke(app, asked(tmp_path, "-o", str(output), "--set", "threads=2"))
    assert done.exception.faults == (
        "--set threads=2: threads is no parameter of a technique; see time-ray merge --help",
    )


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(outputs.os, "pwrite", full)
    done = CliRunner().invoke(app, asked(tmp_path, "-o", str(tmp_path / "o")))
    assert isinstance(done.exception, StoreError)
    assert str(done.exception).startswith(f"{tmp_path / 'o'}: No space left on device; nothing was written")
    assert not [path for path in tmp_path.iterdir() if "part" in path.name or path.name == "o"]


STOPPED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs tests in the background ignores it
from time_ray.merging import streaming
real = streaming.Merger.run
def slow(self):
    real(self)
    print("late", flush=True)
    time.sleep(60)
streaming.Merger.run = slow
from time_ray.cli import main
sys.argv = ["time-ray", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing(tmp_path, number, status):
    command = [sys.executable, "-c", STOPPED, *asked(tmp_path, "-o", str(tmp_path / "o"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "late\n"
        assert [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == status
    assert len(said.splitlines()) == (number == signal.SIGTERM)  # Ctrl-C ends every command without a word
    assert not [path for path in tmp_path.iterdir() if "part" in path.name or path.name == "o"]
