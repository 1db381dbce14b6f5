"""A checkpoint's files: opened, and refused if something is wrong with them."""
