"""Fine-tuning of any diffusers model by any method, on a folder of pictures."""
