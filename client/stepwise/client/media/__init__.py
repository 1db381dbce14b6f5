"""Files of pictures and videos, which say how they were made."""
