"""Opens ONNX files: the fastest provider that works, one clear message otherwise."""

from pathlib import Path
from typing import Final

import onnxruntime

from pose.track import DetectorUnavailableError
from pose.wording import in_a_line

PREFERRED: Final = ("CUDAExecutionProvider", "CPUExecutionProvider")


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Opens an ONNX file on the GPU where onnxruntime has one, else on the CPU.

    Raises:
        DetectorUnavailableError: The file is no ONNX model, or a damaged one.
    """
    available = onnxruntime.get_available_providers()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: a provider that cannot start is no news to a user
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=[provider for provider in PREFERRED if provider in available]
        )
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        raise DetectorUnavailableError(
            f"{path} is no ONNX model that can be loaded ({in_a_line(error)}); get a whole copy of it"
        ) from error
