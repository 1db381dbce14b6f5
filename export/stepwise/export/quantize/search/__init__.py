"""Which layers get how many bits."""
