"""Folders of pictures and videos: what is in them, what is wrong with them, and in which order they are seen."""

from training.finetune.data.buckets import Wanted, bucket, windows
from training.finetune.data.clips import load_pixels
from training.finetune.data.find import Found, Sample, digest, find_samples, split
from training.finetune.data.folder import PICTURES, VIDEOS
from training.finetune.data.order import Order
from training.finetune.data.problems import DataError, Problem
from training.finetune.data.stream import Stream, View

__all__ = [
    "PICTURES",
    "VIDEOS",
    "DataError",
    "Found",
    "Order",
    "Problem",
    "Sample",
    "Stream",
    "View",
    "Wanted",
    "bucket",
    "digest",
    "find_samples",
    "load_pixels",
    "split",
    "windows",
]
