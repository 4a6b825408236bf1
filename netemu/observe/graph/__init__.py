"""A lab as a picture."""
