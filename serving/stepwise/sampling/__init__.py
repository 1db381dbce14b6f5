"""Samplers as tables, noise schedules and noise, without torch."""
