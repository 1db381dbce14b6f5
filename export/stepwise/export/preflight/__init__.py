"""What is found out before anything is written."""
