"""A request: checked, completed, tokenized, logged, and answered."""
