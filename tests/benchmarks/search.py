"""What searches would have found and spared on a grid that is swept: `tests/benchmarks/search.py EXP [KEY=VALUE]...`.

Race and halve are replayed on the stored scores of the experiment's grid, those of the seeds on which all cells are
scored, over orders of the seeds. Prints means over orders: seeds and trajectories that were run, the rank of the cell
that leads what is left by the mean of the whole grid, its regret, and how many are left.
"""

import itertools
import sys

import numpy as np
from numpy.typing import NDArray

from time_ray.analysis.searching import NOTHING_KNOWN, Candidate, candidates, final_scores, search_rule
from time_ray.core.racing import Values, select, trajectories_run
from time_ray.core.search import Search
from time_ray.opened import open_experiment

ORDERS = 10
SEARCHES = (
    Search(mode="race", epsilon=1.0),
    Search(mode="race", epsilon=2.0),
    Search(mode="halve"),
)


def replayed(values: Values, search: Search, found: list[Candidate], trajectory: NDArray[np.intp]) -> str:
    means = values.mean(axis=1)
    orders = list(itertools.islice(itertools.permutations(range(values.shape[1])), 10_000))
    generator = np.random.default_rng(0)
    chosen = [orders[number] for number in generator.permutation(len(orders))[:ORDERS]]
    rows = []
    for order in chosen:
        seen = values[:, list(order)]
        rule = search_rule(search, found, seen.shape[1], NOTHING_KNOWN)
        selection = select(seen, np.zeros(seen.shape, dtype=np.bool_), rule)
        left, seeds = list(selection.live), len(selection.ran)
        leader = left[int(np.argmax(seen[left, :seeds].mean(axis=1)))]
        share = trajectories_run(selection, trajectory) / (len(set(trajectory.tolist())) * seen.shape[1])
        rows.append((seeds, share, 1 + int((means > means[leader]).sum()), means.max() - means[leader], len(left)))
    seeds, share, rank, regret, left = np.mean(rows, axis=0)
    worst = max(row[3] for row in rows)
    return (
        f"{search.mode} epsilon {search.epsilon:g}: {len(chosen)} orders, {seeds:.1f} seeds, {100 * share:.0f} % of "
        f"trajectories, rank {rank:.1f}, regret {regret:.2f} (at most {worst:.2f}), {left:.1f} left"
    )


def main() -> None:
    opened = open_experiment(sys.argv[1], sys.argv[2:])
    found = list(candidates(opened.study))
    columns = []
    for seed in opened.study.experiment.seed:
        scores = final_scores([one.cells[seed][0] for one in found], opened.store, "gm")
        columns += [scores] if not np.isnan(scores).any() else []
    values = np.array(columns).T
    names = [one.first.trajectory for one in found]
    trajectory = np.array([names.index(name) for name in names])
    best = found[int(np.argmax(values.mean(axis=1)))]
    highest = values.mean(axis=1).max()
    print(f"{len(found)} cells, {values.shape[1]} seeds; best of the whole grid: {best.name}, {highest:.2f}")
    for search in SEARCHES:
        print(replayed(values, search, found, trajectory))


if __name__ == "__main__":
    main()
