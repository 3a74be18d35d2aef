"""What is trained, how, on what, and how well: config in, events and weights out."""
