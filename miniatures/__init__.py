"""Small trained checkpoints in the diffusers layout, their training code and their scorer."""
