"""`time-ray budget`: what every model of the grid gets from every budget."""

from collections.abc import Mapping
from typing import Any

from time_ray.clip.cost import size, step_cost
from time_ray.core.budget import Budget
from time_ray.core.experiment import Experiment
from time_ray.core.model import ModelSpec
from time_ray.report import tables
from time_ray.report.tables import Format


def budget_rows(
    experiment: Experiment, steps: Mapping[tuple[ModelSpec, Budget], int], num_tasks: int
) -> list[dict[str, Any]]:
    """A row for each model and budget. `steps` and `samples` are a task's, `total_` those of the whole stream."""
    batch_size = experiment.training.batch_size
    rows = []
    for (spec, budget), count in steps.items():
        cost = step_cost(spec.name, batch_size)
        rows.append(
            {
                "model": spec.label,
                "budget": budget.label,
                "parameters": size(spec.name).total,
                "step_gflops": cost.gflops,
                "memory_ratio": cost.memory_ratio,
                "maf": cost.maf,
                "tasks": num_tasks,
                "steps": count,
                "samples": count * batch_size,
                "total_samples": count * batch_size * num_tasks,
                "total_gflops": count * num_tasks * cost.maf,
            }
        )
    return rows


def print_budgets(rows: list[dict[str, Any]], form: Format) -> None:
    """The rows are on stdout; for people, thousands are set apart."""
    if form != "table":
        tables.print_rows(rows, form)
        return
    shown = [
        {
            "model": row["model"],
            "budget": row["budget"],
            "parameters (M)": row["parameters"] / 1e6,
            "GFLOPs a step": f"{row['step_gflops']:,.0f}" if row["step_gflops"] >= 100 else f"{row['step_gflops']:.2f}",
            "memory": f"x {row['memory_ratio']:g}",
            "MAF": f"{row['maf']:,.0f}" if row["maf"] >= 100 else f"{row['maf']:.2f}",
            "tasks": row["tasks"],
            "steps a task": row["steps"],
            "samples in all": f"{row['total_samples']:,}",
            "GFLOPs in all": f"{row['total_gflops']:.3g}",
        }
        for row in rows
    ]
    tables.print_rows(shown, "table")
