"""Keypoint files from outside: JSON of bounded size and depth, read by the readers of `pose`, written again."""

import json
import re
import tempfile
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from studio.errors import RequestError
from studio.uploads.limits import Limits, limits_of_settings
from studio.uploads.names import shown_name
from studio.uploads.spool import MB, Source, placed, refusal, spooled

if TYPE_CHECKING:
    from pose.sequence import PoseSequence

_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEP: Final = {91: 1, 123: 1, 93: -1, 125: -1}
_FIX: Final = "export the keypoints as JSON again"


class _NotFiniteError(ValueError):
    """NaN or Infinity, which JSON does not know and Python writes all the same."""


def keep_keypoints(
    name: str, source: Source, folder: Path, *, person: int | None = None, limits: Limits | None = None
) -> Path:
    """Keeps keypoints as `keypoints-DIGEST.json` in our own format; `person` as in `pose.readers.read_keypoints`.

    Raises:
        RequestError: empty, too large, no JSON, NaN or infinity in it, an unknown format.
        SeveralPeopleError: several people and `person` is None; the message lists them.
    """
    limits = limits or limits_of_settings()
    with spooled("keypoint file", name, source, folder, limit_mb=limits.keypoints_mb) as upload:
        kept = folder / f"keypoints-{upload.digest}{'' if person is None else f'-{person}'}.json"
        if kept.is_file():
            return kept
        from pose.readers import write_keypoints
        from pose.track import PoseNotFoundError, SeveralPeopleError

        try:
            poses = parse_keypoints(upload.path.read_bytes(), name, limits, person=person)
        except SeveralPeopleError:
            raise
        except PoseNotFoundError as error:
            raise refusal("keypoint file", name, str(error), "choose a file with a person in it") from None
        except ValueError as error:
            raise refusal("keypoint file", name, str(error), _FIX) from None
        with placed(kept) as beside:
            write_keypoints(beside, poses)
    return kept


def parse_keypoints(content: bytes, name: str, limits: Limits, *, person: int | None = None) -> "PoseSequence":
    """Reads the keypoints of one person from the bytes of a JSON file.

    Raises:
        ValueError: what is wrong, in words; also `PoseNotFoundError` and `SeveralPeopleError`.
    """
    from pose.readers import read_keypoints

    if len(content) > limits.keypoints_mb * MB:
        raise ValueError(f"is larger than {limits.keypoints_mb} MB")
    if content[:1] == b"\x80" or content[:2] == b"PK":
        raise ValueError("is a pickle or an archive, which could run any program; only JSON is read")
    if (depth := _depth(content)) > limits.keypoints_depth:
        raise ValueError(f"has lists {depth} deep in one another, and the most is {limits.keypoints_depth}")
    try:
        json.loads(content, parse_constant=_not_finite)
    except _NotFiniteError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({str(error)[:80]})") from None
    # the readers take a file; this one has the checked bytes and a name without surprises
    with tempfile.TemporaryDirectory(prefix="studio-keypoints-") as beside:
        file = Path(beside) / "upload.json"
        file.write_bytes(content)
        try:
            poses = read_keypoints(file, person=person)
        except RequestError:
            raise
        except ValueError as error:
            told = str(error).replace(str(file), shown_name(name))
            raise type(error)(told) from None
    if len(poses) > limits.keypoints_frames:
        raise ValueError(f"has {len(poses)} frames, and the most is {limits.keypoints_frames}")
    return poses


def _depth(content: bytes) -> int:
    """Counts how deep lists and objects stand in one another, without building them."""
    brackets = _STRINGS.sub(b"", content).translate(None, _NOT_BRACKETS)
    return max(accumulate(_STEP[bracket] for bracket in brackets), default=0)


def _not_finite(word: str) -> NoReturn:
    raise _NotFiniteError(f"has {word} in it; all numbers must be finite")
