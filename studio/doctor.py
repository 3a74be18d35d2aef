"""Looks at this machine: what is there, what is missing, and the command that mends it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from studio.versions import PACKAGES, our_version, package_version
from studio.weights import mini_detector, mini_folder

_NEEDED_DISK_GB: Final = 2.0
_OLDEST_TORCH: Final = (2, 11)
APT_LINE: Final = "sudo apt-get install libgl1 libglib2.0-0"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    """The command that mends it; empty when all is well."""
    needed: bool = True
    """False for what only adds something (a GPU, xformers)."""

    def as_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return asdict(self)


def run_checks() -> list[Check]:
    """Runs every check. A check that breaks is a finding, not a crash."""
    checks: list[Check] = []
    for check in (_python, _packages, _system_libraries, _torch, _devices, _attention, _xformers, _video_codecs,
                  _onnxruntime, _mini_weights, _detectors, _disk, _memory, _app):  # fmt: skip
        checks += _guarded(check)
    return checks


def _guarded(check: Callable[[], list[Check]]) -> list[Check]:
    try:
        return check()
    except Exception as error:  # an import that breaks is exactly what doctor is for
        name = check.__name__.strip("_").replace("_", " ")
        return [Check(name=name, ok=False, found=f"{type(error).__name__}: {error}", fix="make install")]


def _python() -> list[Check]:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    return [Check(name="python", ok=sys.version_info >= (3, 11), found=found, fix=_fix("install Python 3.11 or newer"))]


def _packages() -> list[Check]:
    others = ("accelerate", "peft", "safetensors", "einops", "pydantic", "rich", "streamlit")
    missing = [name for name in (*PACKAGES, *others) if package_version(name) is None]
    found = f"animatex-studio {our_version()}, " + ", ".join(f"{name} {package_version(name)}" for name in PACKAGES)
    fix = "" if not missing else f"{sys.executable} -m pip install {' '.join(missing)}"
    return [Check(name="packages", ok=not missing, found=found, fix=fix)]


def _system_libraries() -> list[Check]:
    """OpenCV's wheel carries Qt, which needs two libraries of the system that small images leave out."""
    try:
        import cv2
    except ImportError as error:
        return [Check(name="system libraries", ok=False, found=str(error), fix=APT_LINE)]
    return [Check(name="system libraries", ok=True, found=f"libgl1 and libglib2.0-0: opencv {cv2.__version__} loads")]


def _torch() -> list[Check]:
    import torch

    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    ok = (major, minor) >= _OLDEST_TORCH
    fix = "" if ok else f"{sys.executable} -m pip install --upgrade torch torchvision"
    return [Check(name="torch", ok=ok, found=f"{torch.__version__}, {torch.get_num_threads()} threads", fix=fix)]


def _devices() -> list[Check]:
    import torch

    names = ["cpu"]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            names.append(f"cuda:{index} {properties.name} {properties.total_memory / 2**30:.0f} GiB")
    ok = len(names) > 1
    fix = "" if ok else "nvidia-smi   (if it shows a GPU, install the torch build for its driver: https://pytorch.org)"
    return [Check(name="devices", ok=ok, found=", ".join(names), fix=fix, needed=False)]


def _attention() -> list[Check]:
    import torch

    backends = torch.backends.cuda
    states = {
        "flash": backends.flash_sdp_enabled(),
        "efficient": backends.mem_efficient_sdp_enabled(),
        "math": backends.math_sdp_enabled(),
    }
    names = [name for name, on in states.items() if on]
    query = torch.zeros(1, 1, 4, 8)
    torch.nn.functional.scaled_dot_product_attention(query, query, query)
    return [Check(name="attention", ok=True, found=f"native (torch SDPA: {', '.join(names)})")]


def _xformers() -> list[Check]:
    """Imports xformers in another process: one that does not match torch spams or crashes this one."""
    if package_version("xformers") is None:
        # nothing to mend: its wheels want a torch of their own, and would replace one that works
        return [Check(name="xformers", ok=True, needed=False, found="not installed; SDPA is used")]
    code = "import xformers.ops; assert callable(xformers.ops.memory_efficient_attention)"
    probe = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    clean = probe.returncode == 0 and "WARNING" not in probe.stderr
    found = f"{package_version('xformers')}" + ("" if clean else ", but it does not match this torch; SDPA is used")
    fix = "" if clean else f"{sys.executable} -m pip install --upgrade xformers   (or: pip uninstall xformers)"
    return [Check(name="xformers", ok=clean, needed=False, found=found, fix=fix)]


def _video_codecs() -> list[Check]:
    import av

    encoders = [name for name in ("libx264", "libopenh264", "h264_nvenc", "aac") if name in av.codecs_available]
    ok = "aac" in encoders and any(name.startswith(("libx264", "libopenh264")) for name in encoders)
    fix = "" if ok else f"{sys.executable} -m pip install --force-reinstall --only-binary av av"
    return [Check(name="video codecs", ok=ok, found=f"PyAV {av.__version__}: {', '.join(encoders)}", fix=fix)]


def _onnxruntime() -> list[Check]:
    import onnxruntime

    return [Check(name="onnxruntime", ok=True, found=", ".join(onnxruntime.get_available_providers()))]


def _mini_weights() -> list[Check]:
    from models.loading import check_folder

    folder = mini_folder()
    try:
        check_folder(folder)
    except ValueError as error:
        return [Check(name="mini weights", ok=False, found=str(error), fix=f"git checkout -- {folder}")]
    megabytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    return [Check(name="mini weights", ok=True, found=f"{megabytes:.1f} MB in {folder}")]


def _detectors() -> list[Check]:
    own = mini_detector()
    checks = [Check(name="detector mini", ok=own.is_file(), found=str(own) if own.is_file() else f"{own} is missing",
                    fix="" if own.is_file() else f"git checkout -- {own}")]  # fmt: skip
    cache = Path.home() / ".cache" / "rtmlib" / "hub" / "checkpoints"
    files = sorted(file.name for file in cache.glob("*.onnx")) if cache.is_dir() else []
    fix = "" if files else "studio pose extract VIDEO --detector rtmw --output K.json   (downloads it once)"
    found = ", ".join(files) if files else f"none in {cache}; a MODEL.onnx file works too"
    return [*checks, Check(name="detectors of rtmlib", ok=bool(files), needed=False, found=found, fix=fix)]


def _disk() -> list[Check]:
    checks = []
    for name, place in (("disk here", Path.cwd()), ("disk for temporary files", Path(tempfile.gettempdir()))):
        gigabytes = shutil.disk_usage(place).free / 1e9
        ok = gigabytes >= _NEEDED_DISK_GB
        fix = "" if ok else f"du -xh --max-depth=2 {place} | sort -h | tail"
        checks.append(Check(name=name, ok=ok, found=f"{gigabytes:.1f} GB free in {place}", fix=fix))
    return checks


def _memory() -> list[Check]:
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return []
    kib = {
        line.split(":")[0]: int(line.split()[1]) for line in meminfo.read_text().splitlines() if len(line.split()) > 1
    }
    free, total = kib["MemAvailable"] / 2**20, kib["MemTotal"] / 2**20
    ok = free >= 3
    fix = "" if ok else "ps aux --sort=-rss | head   (close what is not needed; the mini model takes up to 3 GiB)"
    return [Check(name="memory", ok=ok, found=f"{free:.1f} of {total:.1f} GiB free", fix=fix)]


def _app() -> list[Check]:
    """What the app would do when it is started here: who could reach it, and what it may read."""
    from studio.door.rules import TOKEN_VARIABLE, find_token
    from studio.roots import declared_roots
    from studio.settings import FILE, runs_folder, studio_settings

    try:
        settings = studio_settings()
        token = find_token()
    except ValueError as error:
        return [
            Check(name="app", ok=False, found=str(error), fix=f"correct {runs_folder() / FILE} or ${TOKEN_VARIABLE}")
        ]
    who = f"asks for ${TOKEN_VARIABLE}" if token else "this machine only; --host with another address makes a token"
    roots = ", ".join(str(root) for root in declared_roots(local=True))
    found = f"{who}; reads {roots}; uploads up to {settings.uploads.upload_mb} MB"
    if os.environ.get("STUDIO_DEBUG", "") not in ("", "0"):
        return [Check(name="app", ok=False, needed=False, found=f"{found}; shows details of errors (STUDIO_DEBUG)",
                      fix="unset STUDIO_DEBUG")]  # fmt: skip
    return [Check(name="app", ok=True, found=found)]


def _fix(command: str) -> str:
    return command if sys.version_info < (3, 11) else ""
