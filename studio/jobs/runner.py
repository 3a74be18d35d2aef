"""The first thing a job's process does: it takes the job's lock, sees whether its attempt counts, becomes `studio`."""

import fcntl
import os
import signal
import sys
from pathlib import Path

from studio.jobs.process import ATTEMPT, LOCK, STALE, TOKEN


def main(folder: Path, attempt: str, words: list[str]) -> None:
    """Becomes `studio WORDS --json`; ends with `STALE` where another process has the job."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(STALE)
    # under the lock: a worker writes another name only when it has found the lock free
    if (folder / ATTEMPT).read_text(encoding="utf-8") != os.environ[TOKEN]:
        sys.exit(STALE)
    os.set_inheritable(lock, True)
    for stream, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / "logs" / f"{attempt}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    # a shell lets what it starts in the background ignore Ctrl-C; here it means: save and end
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-m", "studio", *words, "--json"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
