"""Which process does a piece of work, told so that others see when it is gone."""

import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A worker: one process that does one thing at a time."""

    worker: str
    """Its name, different for every one there ever was."""
    machine: str
    """Tells machines and containers apart, also ones of the same host name; new after a restart of the machine."""
    pid: int
    born: str
    """When its process began, for numbers of processes come again."""

    @property
    def is_dead(self) -> bool:
        """Whether it can be seen from here that its process is gone."""
        return self.machine == _machine() and _born(self.pid) != self.born


def this_worker() -> Owner:
    """A new owner in this process."""
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    return Owner(worker=name, machine=_machine(), pid=os.getpid(), born=_born(os.getpid()) or "")


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _born(pid: int) -> str | None:
    """The start of a process in ticks of the system's clock; empty where that is not told, None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return ""
    state, *rest = text[text.rindex(")") + 2 :].split()
    # a zombie is dead, though its parent has not looked yet; but not while other threads of it end: they hold its locks
    threads, born = int(rest[16]), rest[18]
    return None if state in "ZX" and threads < 2 else born
