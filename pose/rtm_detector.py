"""RTMPose, RTMW, DWPose and RTMO through rtmlib, from a local file or rtmlib's own download."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime
from jaxtyping import Float, UInt8
from torch import Tensor

from pose.layouts import KNOWN_LAYOUTS, to_points
from pose.sequence import VISIBLE
from pose.sessions import open_session
from pose.track import DetectorUnavailableError, Person

_HOST: Final = "https://download.openmmlab.com/mmpose/v1/projects/"
_YOLOX: Final = (f"{_HOST}rtmposev1/onnx_sdk/yolox_m_8xb8-300e_humanart-c2c7a14a.zip", (640, 640))


class _Weights(NamedTuple):
    """Where a detector's pose network comes from."""

    pose_url: str
    pose_size: tuple[int, int]
    """(width, height) of its input, px."""


NAMED: Final = {
    "rtmpose": _Weights(
        f"{_HOST}rtmposev1/onnx_sdk/rtmpose-m_simcc-body7_pt-body7_420e-256x192-e48f03d0_20230504.zip", (192, 256)
    ),
    "rtmw": _Weights(f"{_HOST}rtmw/onnx_sdk/rtmw-dw-x-l_simcc-cocktail14_270e-384x288_20231122.zip", (288, 384)),
    "dwpose": _Weights(
        f"{_HOST}rtmposev1/onnx_sdk/rtmpose-l_simcc-ucoco_dw-ucoco_270e-384x288-2438fd99_20230728.zip", (288, 384)
    ),
}
MIN_JOINTS: Final = 4
"""Fewer visible joints than this are no person."""


class RTMDetector:
    """Runs rtmlib's two steps, or its one-step RTMO: boxes of people, then joints in each box."""

    def __init__(
        self,
        joints: Callable[..., tuple[np.ndarray, np.ndarray]],
        boxes: Callable[[np.ndarray], np.ndarray] | None,
        *,
        one_step: bool = False,
    ) -> None:
        self._joints, self._boxes, self._one_step = joints, boxes, one_step

    def detect(self, frame: UInt8[Tensor, "height width 3"]) -> list[Person]:
        """Finds everyone in one picture; without a person detector, the whole picture is one box."""
        picture = np.ascontiguousarray(frame.numpy()[..., ::-1])  # rtmlib takes OpenCV's BGR
        if self._one_step:
            keypoints, scores = self._joints(picture)
        else:
            boxes = np.array([[0, 0, frame.shape[1], frame.shape[0]]]) if self._boxes is None else self._boxes(picture)
            if not len(boxes):
                return []
            keypoints, scores = self._joints(picture, bboxes=boxes)
        people = [_person(xy, score) for xy, score in zip(keypoints, scores, strict=True)]
        return [person for person in people if person.num_visible >= MIN_JOINTS]


def load_named(name: str, *, download: bool) -> RTMDetector:
    """Loads RTMPose, RTMW or DWPose with YOLOX.

    Raises:
        DetectorUnavailableError: Weights are neither there nor to be fetched.
    """
    from rtmlib import YOLOX, RTMPose

    weights = NAMED[name]
    det_file = _fetch(_YOLOX[0], name, download)
    pose_file = _fetch(weights.pose_url, name, download)
    boxes = _quietly(lambda: YOLOX(str(det_file), model_input_size=_YOLOX[1], backend="onnxruntime", device=_device()))
    joints = _quietly(
        lambda: RTMPose(str(pose_file), model_input_size=weights.pose_size, backend="onnxruntime", device=_device())
    )
    return RTMDetector(joints, boxes)


def load_file(path: Path) -> RTMDetector:
    """Loads any RTMPose-like (simcc) or RTMO file; a `yolox*.onnx` beside it finds the people's boxes.

    Raises:
        DetectorUnavailableError: The file's inputs or outputs are of another kind.
    """
    from rtmlib import RTMO, YOLOX, RTMPose

    session = open_session(path)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = [output.name for output in outputs]
    shape = inputs[0].shape
    if len(shape) != 4 or not all(isinstance(side, int) for side in shape[2:]):
        raise DetectorUnavailableError(
            f"{path} takes {shape}; a pose detector takes (N, 3, height, width) of fixed size"
        )
    height, width = shape[2:]
    if len(outputs) == 2 and "keypoints" in names:
        tool = _quietly(
            lambda: RTMO(str(path), model_input_size=(height, width), backend="onnxruntime", device=_device())
        )
        return RTMDetector(tool, None, one_step=True)
    if len(outputs) != 2 or len(outputs[0].shape) != 3 or outputs[0].shape[1] not in KNOWN_LAYOUTS:
        raise DetectorUnavailableError(
            f"{path} gives {[(output.name, output.shape) for output in outputs]}, which is no known pose detector; use "
            "an RTMPose, RTMW or DWPose file (simcc_x, simcc_y), an RTMO file, or the mini detector"
        )
    tool = _quietly(
        lambda: RTMPose(str(path), model_input_size=(width, height), backend="onnxruntime", device=_device())
    )
    beside = sorted(path.parent.glob("yolox*.onnx"))
    if not beside:
        return RTMDetector(tool, None)
    side = open_session(beside[0]).get_inputs()[0].shape[2]
    boxes = _quietly(
        lambda: YOLOX(str(beside[0]), model_input_size=(side, side), backend="onnxruntime", device=_device())
    )
    return RTMDetector(tool, boxes)


def cached_file(url: str) -> Path:
    """Where rtmlib keeps the weights of `url`."""
    from rtmlib.tools.file import _get_rtmhub_dir

    return Path(_get_rtmhub_dir()) / "checkpoints" / (Path(url).name.split(".")[0] + ".onnx")


def _fetch(url: str, name: str, download: bool) -> Path:
    """Finds weights in rtmlib's cache, or lets rtmlib fetch them (it says what and where to on stderr)."""
    from rtmlib.tools.file import download_checkpoint

    file = cached_file(url)
    if file.is_file():
        return file
    reason = "downloads are switched off (HF_HUB_OFFLINE)"
    if download:
        try:
            return Path(_quietly(lambda: download_checkpoint(url)))
        except Exception as error:  # rtmlib lets urllib's, zipfile's and its own errors through
            reason = f"the download failed: {error}"
    raise DetectorUnavailableError(
        f"the {name} detector needs {file.name}, and {reason}. Get {url} on a machine with network, unpack "
        f"end2end.onnx from it and put that at {file}; or give any pose model with --detector MODEL.onnx, or use "
        "--detector mini"
    )


def _quietly(make: Callable[[], Any]) -> Any:
    """rtmlib prints on stdout, which belongs to our own output."""
    with contextlib.redirect_stdout(sys.stderr):
        return make()


def _device() -> str:
    return "cuda" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "cpu"


def _person(xy: Float[np.ndarray, "joints 2"], scores: Float[np.ndarray, "joints"]) -> Person:
    """Sorts one person into our joints; what lies below the threshold is missing."""
    rows = np.concatenate([xy, np.where(scores >= VISIBLE, scores, 0)[:, None]], 1).astype(np.float64)
    return to_points(rows, where="the detector's result").person()
