"""What MLflow's UI shows of an experiment when it is opened by one of our addresses: charts that answer, and tables.

A view is a tag of the experiment, in the form in which the UI itself shares one.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

ANSWER = "answer"  # charts of finished cells, or of their summaries over seeds
CELLS = "cells"  # the same rows as a table
ALL = "all"  # every run, the sweeps first, with what lies under each
KIND_TAG = ("mlflow.experimentKind", "custom_model_development")  # else the UI asks, and shows tools for texts
VIEW_TAGS = {name: f"mlflow.sharedViewState.{name}" for name in (ANSWER, CELLS, ALL)}

_FIRST_COLUMNS = ("attributes.`Run Name`", "attributes.`Created`", "attributes.`Duration`")
_TRIO = ("KA", "ZS", "GM")


def address(experiment_id: str, view: str) -> str:
    """The part of a view's address that follows the server's."""
    mode = {"compareRunsMode": "CHART"} if view == ANSWER else {}
    query = urlencode({"workflowType": "machine_learning", "viewStateShareKey": view, **mode})
    return f"#/experiments/{experiment_id}/runs?{query}"


def view_tags(
    axes: Sequence[str], keys: Sequence[str], *, summaries: bool, searched: bool = False, by: str = "GM"
) -> dict[str, str]:
    """The tags of all views.

    Args:
        axes: those on which the rows differ.
        keys: other parameters on which they differ.
        summaries: whether rows are summaries over seeds; else they are cells.
        searched: whether some rows may have been removed by a search: they say so, and on how many seeds they rest.
        by: the metric that they are sorted by.

    """
    of = "summary" if summaries else "cell"
    rows = f"tags.`time_ray.kind` = '{of}' and attributes.status = 'FINISHED'"
    places = [axis for axis in axes if not (summaries and axis == "seed")]
    spread = [f"{title}_sd" for title in _TRIO] if summaries else []
    scores = [by, *(title for title in _TRIO if title != by)]
    columns = [
        *(_column("params", name) for name in [*places, *keys]),
        *(_column("metrics", name) for name in scores),
        _column("tags", "tied"),
        *(_column(kind, name) for kind, name in (("tags", "removed"), ("metrics", "seeds")) if searched),
        *(_column("metrics", name) for name in ["p_best", *spread]),
        *(_column("metrics", name) for name in ("cost/own_seconds", "cost/shared_seconds")),
    ]
    charts = [*_charts([*places, *keys], by)]
    sections = [*_sections()]
    found = {
        ANSWER: {**_state(rows, by, columns), "compareRunCharts": charts, "compareRunSections": sections},
        CELLS: _state(rows, by, columns),
        ALL: {**_state("", None, columns), "runsHiddenMode": "FIRST_10_RUNS"},
    }
    found[ANSWER] |= {"isAccordionReordered": True, "runsHiddenMode": "SHOW_ALL"}
    return {VIEW_TAGS[name]: _packed(state) for name, state in found.items()}


def _packed(state: Mapping[str, Any]) -> str:
    """As the UI packs what it shares: older databases hold 5,000 characters."""
    return f"deflate;{base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()}"


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _state(rows: str, by: str | None, columns: Sequence[str]) -> dict[str, Any]:
    """The UI's own form: which runs, in which order, and which columns."""
    return {
        "searchFilter": rows,
        "orderByKey": _column("metrics", by) if by else "attributes.start_time",
        "orderByAsc": by is None,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns),
        "columnOrder": [*_FIRST_COLUMNS, *columns],
        "columnWidths": {_FIRST_COLUMNS[0]: 320},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsExpanded": {},
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "groupBy": None,
        "groupsExpanded": {},
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "runsHiddenMode": "FIRST_20_RUNS",
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _charts(places: Sequence[str], by: str) -> list[dict[str, Any]]:
    """Retention over accumulation, what the best have in common, who leads, and how that came about."""
    axis = {"type": "METRIC", "dataAccessKey": None}
    return [
        _chart("SCATTER", "scatter", "ZS over KA", xaxis={**axis, "key": "KA"}, yaxis={**axis, "key": "ZS"}),
        _chart(
            "PARALLEL", "parallel", "Axes and scores", selectedParams=list(places), selectedMetrics=["KA", "ZS", by]
        ),
        _chart("BAR", "bars", f"{by} after the last task", metricKey=by),
        *(_line(title) for title in dict.fromkeys((by, *_TRIO))),
    ]


def _line(title: str) -> dict[str, Any]:
    return _chart(
        "LINE",
        f"line-{title}",
        f"{title} by task",
        metricKey=title,
        selectedMetricKeys=[title],
        lineSmoothness=0,
        xAxisScaleType="linear",
        scaleType="linear",
        range={},
        xAxisKey="step",
        selectedXAxisMetricKey="",
        yAxisKey="metric",
        yAxisExpressions=[],
        ignoreOutliers=False,
        useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True,
    )


def _chart(kind: str, name: str, title: str, **more: Any) -> dict[str, Any]:
    chart = {"type": kind, "uuid": f"time-ray-{name}", "displayName": title, "metricSectionId": "time-ray-answer"}
    return {**chart, "isGenerated": False, "deleted": False, "runsCountToCompare": 100, **more}


def _sections() -> list[dict[str, Any]]:
    """The answer is open; what the UI adds for each metric lies below it, closed."""
    names = {
        "answer": "Answer",
        "metrics": "Model metrics",
        "adaptation": "adaptation",
        "retention": "retention",
        "training": "training",
        "cost": "cost",
        "seconds": "seconds",
        "performance": "performance",
        "system": "System metrics",
    }
    return [
        {
            "uuid": f"time-ray-{name}",
            "name": title,
            "display": name in ("answer", "adaptation", "retention"),
            "isReordered": True,
            "deleted": False,
            "isGenerated": False,
        }
        for name, title in names.items()
    ]
