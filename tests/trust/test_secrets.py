"""Secrets of addresses and of the environment: not in what people read, and not in what Ray is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import requests
from pyarrow import fs

from time_ray import api
from time_ray.cluster.ray_cluster import connected
from time_ray.core.secrets import hidden
from time_ray.store.files import Files

SECRET = "hunter2"  # noqa: S105
ADDRESS = f"http://me:{SECRET}@127.0.0.1:9/api?token={SECRET}"


def of_requests() -> None:
    requests.get(ADDRESS, timeout=5)


def of_pyarrow() -> None:
    fs.FileSystem.from_uri(f"s3://me:{SECRET}@bucket/path?endpoint={SECRET}")


def of_mlflow() -> None:
    from mlflow import MlflowClient

    MlflowClient(f"nosuch://me:{SECRET}@host/x").search_experiments()


def of_sqlalchemy() -> None:
    from sqlalchemy import create_engine

    create_engine(f"nosuch+driver://me:{SECRET}@host/x?password={SECRET}")


def of_boto() -> None:
    import boto3

    boto3.client("s3", endpoint_url=f"nosuch://me:{SECRET}@host/x", region_name="x")


def of_our_storage() -> None:
    Files(f"s3://bucket/path?unknown={SECRET}")


@pytest.mark.parametrize("fail", [of_requests, of_pyarrow, of_mlflow, of_sqlalchemy, of_boto, of_our_storage])
def test_errors_are_shown_without_secrets(
    fail: Callable[[], None], time_ray: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "show", lambda *_: fail())
    monkeypatch.setenv("TIME_RAY_DEBUG", "1")
    done = time_ray("show", "exp.yaml")
    assert done.status != 0
    assert "Traceback" in done.err
    assert SECRET not in done.out + done.err


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql+psycopg2://me:{SECRET}@host:5432/mlflow",
        f"could not connect: host=db password={SECRET} user=me",
        f"GET /bucket/x?X-Amz-Credential=A&X-Amz-Signature={SECRET}&x=1",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"see https://{SECRET}@host/x, and s3://a:{SECRET}/@b/c",
    ],
)
def test_what_is_named_a_secret_is_hidden(text: str) -> None:
    assert SECRET not in hidden(text)


@pytest.mark.parametrize("text", ["RAY_AUTH_MODE=token", "tokens=12", "max_tokens: 3", "https://host/x/y", "a@b.c"])
def test_what_is_none_stays(text: str) -> None:
    assert hidden(text) == text


@pytest.mark.parametrize("address", [None, "127.0.0.1:6379"])
def test_ray_is_not_told_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **options: told.append(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr("time_ray.cluster.ray_cluster.check_address", lambda _: None)
    monkeypatch.setattr("time_ray.cluster.ray_cluster._dashboard", lambda _: "")
    monkeypatch.setattr("time_ray.cluster.ray_cluster.close_to_others", lambda _: None)
    monkeypatch.setattr("os.environ", {**KNOWN, **({"RAY_ADDRESS": address} if address else {})})
    with connected(str(tmp_path), threads=1, groups=False):
        pass
    (options,) = told
    assert SECRET not in str(options)
    assert not set(KNOWN) & set(options["runtime_env"]["env_vars"])


KNOWN = {"MLFLOW_TRACKING_URI": ADDRESS, "AWS_SECRET_ACCESS_KEY": SECRET}
