"""Small trained checkpoints in the diffusers layout, how they are trained, and their scorer."""
