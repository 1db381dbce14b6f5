"""A checkpoint's life: from a diffusers folder to the graphs of a model repository."""
