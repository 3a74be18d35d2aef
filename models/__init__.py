"""Networks and sampling: tensors in, tensors out."""
