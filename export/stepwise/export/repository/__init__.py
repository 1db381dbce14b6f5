"""The files of an export in a model repository, and their records."""
