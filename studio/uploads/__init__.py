"""What comes from a browser: checked, converted, and kept under names of ours; anything else is refused in words."""

from studio.uploads.adapters import keep_adapter
from studio.uploads.data_sets import KeptDataSet, keep_data_set
from studio.uploads.keypoints import keep_keypoints
from studio.uploads.limits import Limits, limits_of_settings
from studio.uploads.names import shown_name
from studio.uploads.pictures import keep_picture
from studio.uploads.videos import KeptVideo, keep_video

__all__ = [
    "KeptDataSet",
    "KeptVideo",
    "Limits",
    "keep_adapter",
    "keep_data_set",
    "keep_keypoints",
    "keep_picture",
    "keep_video",
    "limits_of_settings",
    "shown_name",
]
