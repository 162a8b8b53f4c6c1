"""Loopback goes past every proxy, as requests and urllib understand it, and what people said stays said."""

from urllib.request import getproxies_environment, proxy_bypass_environment

import pytest
from requests.utils import should_bypass_proxies

from time_ray.core.loopback import past_proxies

PROXY = {"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9"}
SAID: list[dict[str, str]] = [
    {},
    {"no_proxy": ""},
    {"NO_PROXY": "corp.example, 10.0.0.0/8"},
    {"no_proxy": "localhost", "NO_PROXY": "corp.example"},
    {"NO_PROXY": "*"},
    {"no_proxy": "*,corp.example"},
]


@pytest.mark.parametrize("said", SAID)
def test_loopback_is_reached_directly(monkeypatch: pytest.MonkeyPatch, said: dict[str, str]) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    environment = {**PROXY, **said}
    for name, value in {**environment, **past_proxies(environment)}.items():
        monkeypatch.setenv(name, value)
    for host in ("127.0.0.1", "localhost", *(["corp.example"] if said.get("NO_PROXY") else [])):
        assert should_bypass_proxies(f"http://{host}:5000/", None)
        assert proxy_bypass_environment(f"{host}:5000", getproxies_environment())
    everything = "*" in "".join(said.values())
    assert bool(should_bypass_proxies("http://elsewhere.example/", None)) is everything


def test_it_may_be_said_twice() -> None:
    once = past_proxies({"no_proxy": "a"})
    assert past_proxies(once) == once == dict.fromkeys(("no_proxy", "NO_PROXY"), "a,localhost,127.0.0.1,::1")
