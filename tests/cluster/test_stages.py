"""Stages of a search on Ray Tune: the sweep is asked once whenever all trials have ended, until it has no more."""

from time_ray.cluster.messages import RunTrials, Trials
from time_ray.cluster.room import Request
from time_ray.cluster.stages import Stages
from time_ray.cluster.trial import Scratch
from time_ray.cluster.trial_queue import TrialQueue
from time_ray.trials import Trial

REQUEST = Request.of(workers=1, CPU=1)
NODES = ({"CPU": 1.0},)


def stage(*names: str, lengths: bool = False) -> Trials:
    return Trials(tuple(Trial((name,), "m", (name,), 1.0) for name in names), (REQUEST,) * len(names), lengths)


def test_one_stage_follows_the_other_until_there_is_none() -> None:
    answers: list[Trials] = []
    asked = RunTrials(stage("a", "b"), True, None, 0, b"", "coordinator", Scratch("scratch"))
    queue = TrialQueue(asked.first.trials, asked.first.requests)
    stages = Stages(asked, queue, lambda: answers.pop(0) if answers else None)
    ran: list[tuple[str, bool]] = []
    for answer in (stage("c"), stage("d", lengths=True), stage()):
        while (number := queue.next(NODES)) is not None:
            assert not stages.none_left()
            ran.append((stages.placed[number].cells[0], stages.placed[number].lengths))
            queue.began(number)
            queue.ended(number)
        assert stages.none_left()
        assert not stages.none_left()  # it was asked
        stages.take_more()
        assert not stages.over()
        answers.append(answer)
        stages.take_more()
    assert ran == [("a", False), ("b", False), ("c", False), ("d", True)]
    assert stages.over()
    assert not stages.none_left()


def test_without_a_search_nothing_follows() -> None:
    asked = RunTrials(stage("a"), False, None, 0, b"", "coordinator", Scratch("scratch"))
    queue = TrialQueue(asked.first.trials, asked.first.requests)
    stages = Stages(asked, queue, lambda: None)
    queue.ended(queue.next(NODES) or 0)
    assert stages.over()
    assert not stages.none_left()
