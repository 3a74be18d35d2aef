"""From the pixels of a driving video to pose indicators."""
