"""Hosts made of namespaces: each has its own processes, network, name, home and `/tmp/ray`. They take root.

All hosts see the same files elsewhere: a folder of the tests is their shared folder. A host ends with this process,
however it ends, since its first process reads from us.
"""

import contextlib
import itertools
import os
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import psutil
import pytest

NAMESPACES = ("--net", "--pid", "--mount", "--uts", "--ipc")
NOBODY = "02:00:00:00:00:01"  # a hardware address that no host has: what is sent there is lost without a word
USER = "ubuntu"  # of every host; it may do all that root may

_IMAGE = """
read -r _  # its network is there
hostname {name}
mount --bind {folder}/hosts /etc/hosts
mount --bind {folder}/passwd /etc/passwd
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mkdir -p /tmp/ray /run/sshd
mount --bind {folder}/{name}/ray /tmp/ray
mount --bind {folder}/{name}/home /home
{more}
echo ready
cat
exit  # or the shell would become cat, and not reap what others leave behind
"""
# what is installed on a host stays on it: this Python's packages are there, and a layer over them
_OWN_PACKAGES = "mount -t overlay own -o lowerdir={prefix},upperdir={own}/upper,workdir={own}/work {prefix}"


class Address(NamedTuple):
    """Of a host on the network."""

    name: str
    ip: str


def need_namespaces(*programs: str) -> None:
    """Skip the test where hosts cannot be made, or lack the programs."""
    missing = [name for name in ("unshare", "nsenter", "ip", *programs) if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"hosts are made of namespaces, which takes root{', and '.join(['', *missing])}")


class Host:
    """A host that runs, until it is lost."""

    def __init__(self, network: "Network", address: Address, *, own_packages: bool = False) -> None:
        self.name, self.ip = address
        self.home = network.folder / self.name / "home" / USER
        self._link = f"{network.bridge}-{self.ip.rpartition('.')[2]}"
        own = network.folder / self.name
        for folder in ("ray", f"home/{USER}", "upper", "work"):
            (own / folder).mkdir(parents=True, exist_ok=True)
        more = _OWN_PACKAGES.format(prefix=sys.prefix, own=own) if own_packages else ""
        image = _IMAGE.format(name=self.name, folder=network.folder, more=more)
        words = ["unshare", *NAMESPACES, "--fork", "--mount-proc", "bash", "-euc", image]
        with (own / "log").open("wb") as log:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._plug_in(network)

    def _plug_in(self, network: "Network") -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        while not (children := psutil.Process(self._process.pid).children()):
            assert self._process.poll() is None
        self._init = children[0]
        ip("link", "add", self._link, "type", "veth", "peer", "eth0", "netns", str(self._init.pid))
        ip("link", "set", self._link, "master", network.bridge, "up")
        for words in (f"addr add {self.ip}/24 dev eth0", "link set eth0 up", "link set lo up"):
            subprocess.run(["nsenter", "-t", str(self._init.pid), "--net", "ip", *words.split()], check=True)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "ready\n"

    def words(self, command: Sequence[str], **variables: str) -> list[str]:
        """The command as it is written elsewhere, to run in a login shell of the host's user, in its home."""
        own = {"HOME": str(Path("/home", USER)), "PATH": os.environ["PATH"], **variables}
        shell = ["env", "-i", *(f"{name}={value}" for name, value in own.items()), *command]
        return ["nsenter", "-t", str(self._init.pid), *NAMESPACES, *shell]

    def start(self, command: Sequence[str], out: IO[bytes], err: IO[bytes] | int, **variables: str) -> psutil.Popen:
        """The command runs on the host."""
        return psutil.Popen(self.words(command, **variables), stdout=out, stderr=err)

    @staticmethod
    def below(pid: int) -> list[psutil.Process]:
        """The process and all that it has started."""
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]

    def run(self, command: Sequence[str], **variables: str) -> str:
        """The command has run on the host: its output."""
        done = subprocess.run(self.words(command, **variables), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    @property
    def processes(self) -> list[str]:
        """Command lines of what runs on the host."""
        found = []
        for process in self._running():
            with contextlib.suppress(psutil.Error):
                found.append(shlex.join(process.cmdline()))
        return found

    def _running(self) -> Iterator[psutil.Process]:
        """All processes but the first, and what that waits for."""
        space = Path(f"/proc/{self._init.pid}/ns/pid").readlink()
        ours = {self._init.pid, *(child.pid for child in self._init.children() if child.name() == "cat")}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid not in ours and Path(f"/proc/{process.pid}/ns/pid").readlink() == space:
                    yield process

    @contextmanager
    def cut_off_from(self, ip_address: str) -> Iterator[None]:
        """While the block runs, whatever the host sends to the address is lost."""
        self.run(["ip", "neigh", "replace", ip_address, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent"])
        try:
            yield
        finally:
            self.run(["ip", "neigh", "del", ip_address, "dev", "eth0"])

    def lose(self) -> None:
        """Its power has failed: every process is dead, and nobody was told."""
        ip("link", "set", self._link, "down")
        self._init.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def kill_all(self) -> None:
        """Every process is dead; the kernel closes their connections."""
        for process in self._running():
            process.kill()

    def unplug(self) -> None:
        """Its link is gone; what its kernel has not sent yet would keep it for minutes."""
        subprocess.run(["ip", "link", "del", self._link], stderr=subprocess.DEVNULL, check=False)

    @property
    def is_up(self) -> bool:
        return self._process.poll() is None


class Network:
    """A network of our own, on which we have two addresses: the hosts' services may be at either."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        self._hosts: list[Host] = []
        number = secrets.randbelow(1 << 14)
        self._prefix = f"10.{64 + (number >> 8)}.{number & 255}"
        self.bridge = f"tr{number}"
        self.ours = (f"{self._prefix}.253", f"{self._prefix}.254")
        users = [f"{USER}:x:0:0::/home/{USER}:/bin/bash"]  # first: whoever asks for the name of 0 finds it
        users += [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith(f"{USER}:")]
        (folder / "passwd").write_text("\n".join([*users, ""]))
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        ip("link", "add", self.bridge, "type", "bridge")
        ip("link", "set", self.bridge, "up")
        for address in self.ours:
            ip("addr", "add", f"{address}/24", "dev", self.bridge)

    def address(self) -> Address:
        """Of a new host, whose name every host knows."""
        number = next(self._numbers)
        address = Address(f"host-{number}", f"{self._prefix}.{number}")
        with (self.folder / "hosts").open("a") as file:
            file.write(f"{address.ip} {address.name}\n")
        return address

    def host(self, address: Address | None = None, *, own_packages: bool = False) -> Host:
        """A host that runs."""
        self._hosts.append(Host(self, address or self.address(), own_packages=own_packages))
        return self._hosts[-1]

    def end(self) -> None:
        """Nothing of it is left."""
        for host in self._hosts:
            if host.is_up:
                host.lose()
        for host in self._hosts:  # now: a host that was switched on again has the link of the one before it
            host.unplug()
        ip("link", "del", self.bridge)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network without hosts; nothing of it or of its hosts is left after the block."""
    made = Network(folder)
    try:
        yield made
    finally:
        made.end()
