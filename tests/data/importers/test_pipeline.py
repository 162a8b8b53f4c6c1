"""What all imports promise: resumed, nothing twice, nothing lost in silence, the same in one process and in many."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from pictures import picture

from time_ray.core.errors import UserError
from time_ray.data.dataset import Dataset
from time_ray.data.importers import samples, worker_processes
from time_ray.data.importers.imagefolder import import_imagefolder
from time_ray.data.importers.sample_faults import SampleFault, counted, read_report

SHARD = 10


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "PART_SAMPLES", SHARD)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Fifty images of two classes for training, ten for testing."""
    for number in range(60):
        split = "test" if number >= 50 else "train"
        path = tmp_path / f"pets/{split}/{('ant', 'bee')[number % 2]}/{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return tmp_path / "pets"


def files(folder: Path) -> dict[str, int]:
    """Every file below the folder, and when it was written."""
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_only_what_the_card_lists_is_left_at_the_end(root: Path, tmp_path: Path) -> None:
    card = import_imagefolder(root, tmp_path / "out")
    shards = {shard for info in card.splits.values() for shard in info.shards}
    assert {name: len(info.shards) for name, info in card.splits.items()} == {"train": 5, "test": 1}
    assert set(files(tmp_path / "out")) == {*shards, "card.json", "report.jsonl"}
    assert read_report(tmp_path / "out") == []


def test_the_same_import_again_does_nothing(root: Path, tmp_path: Path) -> None:
    card = import_imagefolder(root, tmp_path / "out")
    before = files(tmp_path / "out")
    assert import_imagefolder(root, tmp_path / "out") == card
    assert files(tmp_path / "out") == before


def test_processes_make_what_one_process_makes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_processes, "ALONE_SECONDS", 0.0)
    (root / "train/ant/00.png").write_bytes(b"no image")
    alone = import_imagefolder(root, tmp_path / "alone", strict=False)
    seen: list[float] = []
    together = import_imagefolder(
        root, tmp_path / "together", strict=False, jobs=2, progress=lambda progress: seen.append(progress.share)
    )
    assert together == alone
    assert read_report(tmp_path / "together") == read_report(tmp_path / "alone") != []
    assert seen == sorted(seen)
    assert seen[-1] == 1


KILLED = """
import os, signal, sys
from time_ray.data.importers import pipeline, samples
from time_ray.data.importers.imagefolder import import_imagefolder
samples.PART_SAMPLES = 10
make = pipeline._make
made = []
def counting(*arguments):
    if len(made) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    made.append(make(*arguments))
    return made[-1]
pipeline._make = counting
import_imagefolder(sys.argv[1], sys.argv[2])
"""


def test_a_killed_import_goes_on_and_writes_nothing_twice(root: Path, tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, root, tmp_path / "out"], check=False)
    assert ended.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match="no dataset here"):
        Dataset.open(tmp_path / "out")
    finished = {name: when for name, when in files(tmp_path / "out").items() if name.endswith(".parquet")}
    assert len(finished) == 3
    card = import_imagefolder(root, tmp_path / "out")
    assert card == import_imagefolder(root, tmp_path / "undisturbed")
    after = files(tmp_path / "out")
    assert {name: after[name] for name in finished} == finished
    assert set(after) == set(files(tmp_path / "undisturbed"))


def test_a_finished_shard_that_was_damaged_is_made_again(root: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, root, tmp_path / "out"], check=False)
    first, second, _ = sorted((tmp_path / "out").glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    second.unlink()
    assert import_imagefolder(root, tmp_path / "out") == import_imagefolder(root, tmp_path / "undisturbed")


def test_a_source_that_changed_meanwhile_leaves_no_orphans(root: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, root, tmp_path / "out"], check=False)
    (root / "train/ant/00.png").unlink()
    card = import_imagefolder(root, tmp_path / "out")
    shards = {shard for info in card.splits.values() for shard in info.shards}
    assert card.splits["train"].rows == 49
    assert {path.name for path in (tmp_path / "out").glob("*.parquet")} == shards


def test_another_dataset_is_never_written_over(root: Path, tmp_path: Path) -> None:
    import_imagefolder(root, tmp_path / "out")
    (root / "train/ant/00.png").unlink()
    with pytest.raises(UserError, match=r"out: holds another dataset already \(pets\)"):
        import_imagefolder(root, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train-00000-0123456789abcdef.parquet").write_text("my own")
    with pytest.raises(UserError, match="mine: holds other files; give a new or an empty folder"):
        import_imagefolder(root, tmp_path / "mine")
    assert (tmp_path / "mine" / "train-00000-0123456789abcdef.parquet").read_text() == "my own"


def test_what_strict_refuses_is_left_out_without_making_anything_again(root: Path, tmp_path: Path) -> None:
    (root / "train/ant/00.png").write_bytes(picture(0)[:-1])
    (root / "train/bee/01.png").write_bytes(b"")
    (root / "test/ant/50.png").write_bytes(b"GIF89a")
    (root / "test/bee/51.png").unlink()
    (root / "test/bee/51.png").symlink_to("nowhere")
    with pytest.raises(UserError) as caught:
        import_imagefolder(root, tmp_path / "out")
    assert len(caught.value.faults) == 4
    assert not (tmp_path / "out/card.json").exists()
    before = {name: when for name, when in files(tmp_path / "out").items() if name.endswith(".parquet")}
    card = import_imagefolder(root, tmp_path / "out", strict=False)
    after = files(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert {name: info.rows for name, info in card.splits.items()} == {"train": 48, "test": 8}
    lines = [json.loads(line) for line in (tmp_path / "out/report.jsonl").read_text().splitlines()]
    assert {(line["kind"], Path(line["where"]).name, line["split"]) for line in lines} == {
        ("truncated image", "00.png", "train"),
        ("empty image", "01.png", "train"),
        ("unreadable image", "50.png", "test"),
        ("missing file", "51.png", "test"),
    }
    with pytest.raises(UserError) as again:
        import_imagefolder(root, tmp_path / "out")
    assert Counter(again.value.faults) == Counter(caught.value.faults)


def test_a_split_of_which_nothing_is_left_is_no_dataset(root: Path, tmp_path: Path) -> None:
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"of split test could be imported \(.*no.*image.*\); report\.jsonl"):
        import_imagefolder(root, tmp_path / "out", strict=False)
    assert len(read_report(tmp_path / "out")) == 10


def test_a_folder_that_cannot_be_written_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        import_imagefolder(root, tmp_path / "file" / "out")


WAITING = """
import sys
from time_ray.data.importers.imagefolder import import_imagefolder
print(import_imagefolder(sys.argv[1], sys.argv[2]).digest)
"""


def test_two_imports_into_one_folder_take_turns(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WAITING, root, tmp_path / "out"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=100)[0] for process in both}
    assert said == {import_imagefolder(root, tmp_path / "alone").digest + "\n"}
    assert not (tmp_path / "out/.import").exists()


PARENT = """
import os, sys, time
from time_ray.data.importers import worker_processes
worker_processes.ALONE_SECONDS = 0.0
def work(seconds):
    os.write(1, b"%d\\n" % os.getpid())  # in one piece: two workers write
    time.sleep(seconds)
if __name__ == "__main__":
    list(worker_processes.run_jobs(work, [100.0, 100.0, 100.0], 2))
"""


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    children = [int(parent.stdout.readline()) for _ in range(2)]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, children))


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text() and pid != os.getpid()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_faults_are_counted_by_kind_and_by_what_became_of_them() -> None:
    faults = [
        SampleFault("a", "train", "x", "y"),
        SampleFault("b", "train", "x", "y", kept=True),
        SampleFault("a", "test", "x", "y"),
    ]
    assert counted(faults) == {("a", False): 2, ("b", True): 1}


@pytest.mark.parametrize("content", ["{bad", '{"a": 1}', "[1]"])
def test_a_report_that_was_changed_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"report\.jsonl: is not as it was written \(.*\); import the dataset again"):
        read_report(tmp_path)
