"""What can go wrong at the doors, and the exit code that each kind of trouble has.

0    done
1    failed while running
2    the request was wrong: a flag, a config, a file
130  interrupted
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from pose.wording import in_a_line

DONE: Final = 0
FAILED: Final = 1
WRONG_REQUEST: Final = 2
INTERRUPTED: Final = 130


class RequestError(ValueError):
    """Says what is wrong with a request: the flag or file, the value and the fix."""


class FailedCheckError(RuntimeError):
    """A check ran and found something; `result` is what `--json` prints beside the message."""

    def __init__(self, message: str, result: Mapping[str, object]) -> None:
        super().__init__(message)
        self.result = result


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Words a suggestion for a misspelt `name`: " (did you mean 'walk'?)", or nothing when none is close."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def exit_code(error: BaseException) -> int:
    """Sorts an exception into the exit codes of the command line.

    ValueError is what our rooms raise for a caller's mistake, and a file that is not there is one too. All else
    (out of memory, a full disk, a bug) happened while running.
    """
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, ValueError | FileNotFoundError | NotADirectoryError | IsADirectoryError | PermissionError):
        return WRONG_REQUEST
    return FAILED


def describe(error: BaseException) -> str:
    """Words an exception as one message without a traceback."""
    text = str(error).strip()
    if type(error).__name__ == "OutOfMemoryError":
        less = "Try --offload, a smaller --height and --width, fewer --num-frames, or --dtype bfloat16."
        return f"{in_a_line(error)} {less}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ValueError | FailedCheckError):
        return text or type(error).__name__
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
