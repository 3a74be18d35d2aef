"""The search for what to train (MemControl), on real models: sites, the inner training, and how it is judged."""
