"""A checkpoint's components as torch modules."""
