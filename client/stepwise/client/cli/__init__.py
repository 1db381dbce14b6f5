"""The command ``stepwise``."""
