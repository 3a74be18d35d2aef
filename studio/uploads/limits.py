"""How large and how long an upload may be; one place for all of it, and what the form of the settings shows."""

from typing import Annotated

from pydantic import Field

from studio.requests import Request, Unit

Megabytes = Annotated[int, Field(ge=1, le=100_000), Unit("MB")]


class Limits(Request):
    """Limits of what comes from a browser. MB are 1,000,000 bytes."""

    upload_mb: Megabytes = 500
    """The largest file that the browser may send at all."""
    picture_mb: Megabytes = 50
    """The largest picture file."""
    picture_megapixels: Annotated[int, Field(ge=1, le=1000), Unit("megapixels")] = 50
    """The largest picture, by its header, before anything is decoded."""
    video_mb: Megabytes = 500
    """The largest video file."""
    video_duration_s: Annotated[float, Field(gt=0, le=36_000), Unit("s")] = 120.0
    """The longest video."""
    video_frames: Annotated[int, Field(ge=1, le=1_000_000)] = 7200
    """The most frames of a video."""
    video_side_px: Annotated[int, Field(ge=16, le=16_384), Unit("px")] = 4096
    """The longest side of a video that is read."""
    video_kept_side_px: Annotated[int, Field(ge=16, le=8192), Unit("px")] = 1280
    """Larger videos are kept at this long side."""
    video_convert_s: Annotated[float, Field(gt=0, le=36_000), Unit("s")] = 900.0
    """The longest time that converting a video may take."""
    keypoints_mb: Megabytes = 50
    """The largest keypoint file."""
    keypoints_depth: Annotated[int, Field(ge=4, le=200)] = 20
    """How deep lists and objects may stand in one another."""
    keypoints_frames: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """The most frames of a keypoint file."""
    zip_mb: Megabytes = 500
    """The largest zip file."""
    zip_members: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """The most files and folders in a zip file."""
    zip_member_mb: Megabytes = 500
    """The largest file in a zip file, unpacked."""
    zip_total_mb: Megabytes = 5000
    """All files of a zip file together, unpacked."""
    zip_ratio: Annotated[float, Field(ge=2, le=2000)] = 200.0
    """How many times its packed size a file may have unpacked, where that is more than 1 MB."""
    zip_depth: Annotated[int, Field(ge=1, le=50)] = 10
    """How many folders may stand in one another."""
    zip_check_s: Annotated[float, Field(gt=0, le=36_000), Unit("s")] = 1800.0
    """The longest time that unpacking and checking a zip file may take."""
    adapter_mb: Megabytes = 500
    """The largest adapter file."""
    adapter_tensors: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000
    """The most tensors of an adapter file."""


def limits_of_settings() -> Limits:
    """What the owner of this studio set.

    Raises:
        RequestError: the settings are wrong.
    """
    from studio.settings import studio_settings  # of which these are a part

    return studio_settings().uploads
