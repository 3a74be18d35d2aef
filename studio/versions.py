"""Which software made a result."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

PACKAGES: Final = (
    "torch",
    "diffusers",
    "transformers",
    "open-clip-torch",
    "onnxruntime",
    "av",
    "opencv-python",
    "numpy",
)
"""The packages whose version can change a video."""


def our_version() -> str:
    """The version of animatex-studio."""
    return package_version("animatex-studio") or "unknown"


def package_version(name: str) -> str | None:
    """Looks up an installed package without importing it; None when it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def software_versions() -> dict[str, str | None]:
    """Lists Python, this program and the packages that can change a result."""
    return {
        "animatex-studio": our_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: package_version(name) for name in PACKAGES},
    }
