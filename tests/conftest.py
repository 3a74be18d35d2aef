"""What tests of several rooms share."""

import pytest


@pytest.fixture(scope="module")
def tiny():
    """A pipeline of random weights, small enough for every test."""
    from models.presets import tiny_pipeline

    pipe = tiny_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe
