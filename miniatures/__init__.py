"""Small trained checkpoints in the real diffusers layout, how they are trained, and their scorer."""
