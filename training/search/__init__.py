"""The outer loop (MemControl, arXiv 2405.19458): which parameters to train, so that a model learns without copying."""
