"""Candidates on Ray: Tune runs each as a trial, as Optuna suggests them through Tune's own searcher."""

from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from time_ray.cluster.candidates import sampler, space
from time_ray.cluster.messages import RunTuning
from time_ray.core.tuning import Candidate

METRIC = "value"


class CandidateSearcher(OptunaSearch):  # type: ignore[misc]  # Ray is not typed
    """Optuna's suggestions in rounds: scores of a round are told in its order, and once all of it has ended.

    Args:
        asked: the search.
        draining: whether no further candidate shall start.

    """

    def __init__(self, asked: RunTuning, draining: Callable[[], bool]) -> None:
        start = None if asked.start is None else [dict(asked.start)]
        super().__init__(
            space(asked.ranges), metric=METRIC, mode="max", points_to_evaluate=start, sampler=sampler(asked.seed)
        )
        self._at_once = asked.at_once
        self._left = asked.candidates
        self._draining = draining
        self._round: list[str] = []
        self._over: dict[str, dict[str, Any] | None] = {}

    def set_search_properties(self, *_: object, **__: object) -> bool:
        """See Searcher: all is known."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """See Searcher: None is "not now"."""
        if self._draining():
            return str(Searcher.FINISHED)
        if len(self._round) == self._at_once:
            return None
        self._round.append(trial_id)
        self._left -= 1
        return {"number": -self._left, "suggested": super().suggest(trial_id)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """See Searcher: a candidate has one result, which comes with its end."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """See Searcher."""
        self._over[trial_id] = None if error else result
        if len(self._over) == min(self._at_once, len(self._round) + self._left):
            for one in self._round:
                ended = self._over[one]
                super().on_trial_complete(one, ended, error=ended is None or ended.get(METRIC) is None)
            self._round, self._over = [], {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles it for a way of resuming that is not ours."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """See Searcher: what is scored is known from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """See Searcher: what is scored is known from the store."""


def tune_parameters(asked: RunTuning, draining: Callable[[], bool]) -> tuple[Candidate, ...]:
    """Every candidate, in order, each a trial of Ray Tune; fewer once the sweep is to stop, or where some were lost."""
    worker = dict(asked.request.worker)
    trainable = tune.with_parameters(try_candidate, job=asked.job, tuning=asked.tuning, worker=worker)
    ended = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([worker])),
        tune_config=tune.TuneConfig(
            search_alg=CandidateSearcher(asked, draining), num_samples=asked.candidates, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name=f"tuning-{asked.tuning[:12]}",
            **asked.scratch.where(),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=asked.max_failures),
        ),
    ).fit()
    told = sorted((one for one in ended if one.error is None), key=lambda one: one.config["number"])
    return tuple(Candidate(one.metrics["params"], one.metrics[METRIC], one.metrics["error"]) for one in told)


def try_candidate(config: dict[str, Any], *, job: bytes, tuning: str, worker: dict[str, float]) -> None:
    """The Tune trainable: a candidate is merged and scored, and says how well it does.

    It works as the single worker of a trial does: in this process, by Ray Train's local mode.
    """
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    from time_ray.cluster.worker import score_candidate

    scored: list[Candidate] = []

    def work() -> None:
        scored.append(score_candidate(job, tuning, config["suggested"], resources=worker))

    TorchTrainer(work, scaling_config=ScalingConfig(num_workers=0)).fit()
    (found,) = scored
    tune.report({METRIC: found.value, "params": found.params, "error": found.error})
