"""`time-ray budget`: what every model of the grid gets from every budget."""

from collections.abc import Sequence
from dataclasses import asdict

from time_ray.planning import BudgetReport
from time_ray.report import tables
from time_ray.report.tables import Format


def print_budgets(budgets: Sequence[BudgetReport], form: Format) -> None:
    """The rows are on stdout; for people, thousands are set apart."""
    rows = [asdict(budget) for budget in budgets]
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
