"""Validates, completes, tokenizes and logs requests, and builds their responses."""
