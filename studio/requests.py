"""What can be asked of the doors. Each knob is written once: type, bounds and unit, default, help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

from pose.adjustment import NOT_ADJUSTED, Adjustment, read_adjustment
from studio.errors import RequestError, did_you_mean

R = TypeVar("R", bound=BaseModel)


def _share_or_auto(value: Any) -> float | Literal["auto"]:
    """Reads a share of the steps, or auto."""
    if value == "auto":
        return "auto"
    try:
        share = float(value)
    except (TypeError, ValueError):
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError("must be a share of the steps from 0 to 1, or auto")
    return share


@dataclass(frozen=True)
class Unit:
    """The unit of a number, shown in the help and in the form."""

    name: str


@dataclass(frozen=True)
class Positional:
    """Marks a field that stands on the command line without a flag."""


@dataclass(frozen=True)
class Repeated:
    """Marks a field that takes NAME=VALUE on the command line, again and again."""

    metavar: str


class Request(BaseModel):
    """A request: frozen, checked, and unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


Pixels = Annotated[int, Field(ge=32, le=4096, multiple_of=16), Unit("px")]
MAX_PROMPT = 4000
Prompt = Annotated[str, Field(max_length=MAX_PROMPT)]
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Adjust = Annotated[Adjustment, BeforeValidator(read_adjustment), Repeated("NAME=X")]
GuidanceStart = Annotated[float | Literal["auto"], PlainValidator(_share_or_auto)]


class SamplingRequest(Request):
    """What every generated video needs to know."""

    model: Annotated[str, Field(min_length=1)] = "mini"
    """mini, a folder in diffusers layout, or a hub id."""
    adapter: tuple[str, ...] = ()
    """Adapter to load, FILE or FILE:SCALE; repeat it for several."""
    negative_prompt: Prompt = ""
    """What the video should not show."""
    height: Pixels | None = None
    """Height of the video; by default the model's short side in the picture's shape."""
    width: Pixels | None = None
    """Width of the video; by default the model's short side in the picture's shape."""
    fit: Literal["cover", "contain"] = "cover"
    """How the picture meets another shape: cover crops it, contain adds borders. It is never stretched."""
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Denoising steps: more is slower and cleaner. By default the model's."""
    guidance_scale: Annotated[float, Field(ge=0, le=50)] | None = None
    """How much text and pose count; 1 is off and twice as fast. By default the model's."""
    prompt_noise: Annotated[float, Field(ge=0, le=4)] = 0.0
    """Noise on the prompt's embeddings, as a share of their size: against copies of trained pictures, see
    docs/guard.md."""
    prompt_random_words: Annotated[int, Field(ge=0, le=64)] = 0
    """Random words that are put into the prompt, against the same."""
    guidance_start: GuidanceStart = 0.0
    """The share of the steps before guidance begins, or auto, against the same."""
    guidance_before: Annotated[float, Field(ge=-20, le=1)] = 1.0
    """Guidance until then: 1 is none, 0 the negative prompt alone, less than 0 the opposite of the prompt."""
    scheduler: Literal["euler", "unipc"] | None = None
    """How the steps are taken. By default the model's."""
    seed: Seed = 0
    """Same seed and device: same video."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: Dtype = "auto"
    """Number format: float32 on the CPU and bfloat16 on a GPU by default."""
    offload: bool = False
    """Keeps only the part that works on the GPU: less memory, slower. A transformer that does not fit comes block by
    block."""
    preview: bool = False
    """Also writes a contact sheet, OUT.png."""
    live: Path | None = Field(default=None, exclude=True)
    """A PNG that shows the video on its way, written again and again while it is made."""


class AnimateRequest(SamplingRequest):
    """Animates the reference picture with the driving motion; writes an MP4 and a sidecar OUT.json."""

    reference: Path
    """The picture to animate: a file, or a bundled character (see `studio characters`)."""
    driving: Annotated[str, Field(min_length=1)]
    """The motion: a video, a keypoint file or folder, or a bundled motion (see `studio motions`)."""
    prompt: Prompt = ""
    """What the video shows."""
    num_frames: Annotated[int, Field(ge=1, le=100_000), Unit("frames")] | None = None
    """Length of the video; by default the whole clip, 17 for a bundled motion."""
    fps: Annotated[float, Field(gt=0, le=240), Unit("frames/s")] | None = None
    """Frame rate of the video; the motion keeps its speed. By default the model's, or the clip's when lower."""
    align: Literal["auto", "none"] = "auto"
    """auto fits the driving skeleton to the body of the reference."""
    adjust: Adjust = NOT_ADJUSTED
    """Changes the aligned motion by hand, such as arms=1.2, scale=0.9 or shift_x=0.05; repeat it for several. Names:
    shift_x, shift_y (shares of the picture), scale, shoulders, arms, forearms, torso, thighs, shins, neck, head (0.5
    to 2)."""
    reference_pose: Path | None = None
    """Keypoints of the reference picture, instead of detecting them."""
    detector: Annotated[str, Field(min_length=1)] = "mini"
    """Who finds the keypoints: mini, dwpose, rtmw, rtmpose, or a MODEL.onnx."""
    person: Annotated[int, Field(ge=1)] | None = None
    """Which person of the driving clip, 1 being the leftmost, when there are several."""
    driving_fps: Annotated[float, Field(gt=0, le=240), Unit("frames/s")] | None = None
    """Frame rate of keypoint files that do not write it; 30 if not given."""
    audio: bool = False
    """Keeps the sound of the driving video, in step."""
    output: Path | None = None
    """The MP4 to write; by default REFERENCE-DRIVING.mp4 here."""


class BackgroundRequest(SamplingRequest):
    """Brings a picture alive after a text, without a pose; writes an MP4 and a sidecar OUT.json."""

    image: Path
    """The picture to bring alive: a file, or a bundled character (see `studio characters`)."""
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)]
    """What happens in the video."""
    num_frames: Annotated[int, Field(ge=1, le=100_000), Unit("frames")] = 17
    """Length of the video."""
    fps: Annotated[float, Field(gt=0, le=240), Unit("frames/s")] | None = None
    """Frame rate of the video; by default the model's."""
    output: Path | None = None
    """The MP4 to write; by default IMAGE-background.mp4 here."""


def make_request(kind: type[R], values: dict[str, Any], *, as_flags: bool = False) -> R:
    """Checks `values` against a request; what is wrong is told in one message a person can act on.

    Raises:
        RequestError: one line for each wrong value: its name, the value and the fix.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise RequestError("\n".join(_worded(kind, dict(e), as_flags) for e in error.errors())) from None


def _worded(kind: type[BaseModel], error: dict[str, Any], as_flags: bool) -> str:
    """Words one of pydantic's findings."""
    field = str(error["loc"][0]) if error["loc"] else ""
    name = _shown(field, kind) if as_flags else field
    inner, path = _innermost(kind, error["loc"])
    if inner is not kind:
        kind, field, name = inner, str(path[-1]), ".".join(map(str, path))
    limits: dict[str, Any] = error.get("ctx", {})
    value: Any = error.get("input")
    match error["type"]:
        case "missing":
            return f"{name} is required: {kind.model_fields[field].description or 'give a value'}"
        case "extra_forbidden":
            return f"{name} is not an option{did_you_mean(field, kind.model_fields)}"
        case "multiple_of":
            step, low = limits["multiple_of"], int(value) // limits["multiple_of"] * limits["multiple_of"]
            return f"{name} {value}: must be a multiple of {step}; try {low or step} or {low + step}"
        case "literal_error":
            return f"{name} {value}: must be {limits['expected']}{did_you_mean(str(value), _choices(limits))}"
        case "string_pattern_mismatch" if field == "device":
            return f"{name} {value}: must be auto, cpu, cuda or cuda:N"
        case "string_too_long":
            most = limits["max_length"]
            return f"{name} has {len(str(value))} characters, more than any model reads; use at most {most}"
        case "string_too_short":
            return f"{name} is empty; give a value"
        case "int_parsing" | "int_type" | "int_from_float":
            return f"{name} {value}: must be a whole number"
        case "float_parsing" | "float_type":
            return f"{name} {value}: must be a number"
    rule = error["msg"].replace("Input should", "must").replace("String should", "must").removeprefix("Value error, ")
    shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return f"{name} {shown[:80]}: {rule}"


def _innermost(kind: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[type[BaseModel], list[int | str]]:
    """The nested model that a finding is about, and the way to it: data.1.repeat, counted from 1 as people do."""
    path: list[int | str] = []
    for place, part in enumerate(loc):
        path.append(part + 1 if isinstance(part, int) else part)
        info = kind.model_fields.get(str(part))
        within = _models(info.annotation) if info is not None else []
        # only where the rest of the way leads into it
        if len(within) == 1 and any(isinstance(rest, str) for rest in loc[place + 1 :]):
            kind = within[0]
    return kind, path


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models in a type such as tuple[Model, ...] or Model | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _shown(field: str, kind: type[BaseModel]) -> str:
    """Spells a field as the command line does."""
    info = kind.model_fields.get(field)
    if info is not None and any(isinstance(mark, Positional) for mark in info.metadata):
        return field.upper()
    return "--" + field.replace("_", "-")


def _choices(limits: dict[str, Any]) -> list[str]:
    """Takes the choices out of pydantic's wording, "'a', 'b' or 'c'"."""
    return [word.strip("' ") for word in limits["expected"].replace(" or ", ",").split(",")]
