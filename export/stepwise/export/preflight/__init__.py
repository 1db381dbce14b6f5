"""Checks an export before anything is written."""
