"""Whether this process runs inside a Ray job, and which: Ray says so to the job's command by its environment."""

import json
from collections.abc import Mapping

_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def ray_job(environment: Mapping[str, str]) -> str | None:
    """The submission id of the Ray job around this process; None outside of one."""
    config = json.loads(environment.get(_CONFIG) or "{}")
    job = config.get("metadata", {}).get("job_submission_id")
    return None if job is None else str(job)
