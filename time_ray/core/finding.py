"""What `time-ray doctor` finds: something that stops or spoils a sweep, and what mends it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One fault of a machine, a storage, a server or a cluster."""

    check: str  # what was looked at, in a word or two
    where: str  # the machine, node or address
    fault: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.fault}; {self.remedy}"
