"""Opens a checkpoint's files and refuses those that are incomplete, damaged or unsupported."""
