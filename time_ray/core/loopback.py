"""What runs on this machine is never reached through a proxy."""

from collections.abc import Mapping

HOSTS = ("localhost", "127.0.0.1", "::1")
_NAMES = ("no_proxy", "NO_PROXY")  # some libraries read one of them, some the other


def past_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep loopback out of any proxy, beside the hosts that the environment names already."""
    named = ",".join(environment[name] for name in _NAMES if environment.get(name))
    hosts = dict.fromkeys(host.strip() for host in named.split(",") if host.strip())
    if "*" in hosts:  # no host at all goes through a proxy; some libraries know the star only where it stands alone
        return dict.fromkeys(_NAMES, "*")
    return dict.fromkeys(_NAMES, ",".join({**hosts, **dict.fromkeys(HOSTS)}))
