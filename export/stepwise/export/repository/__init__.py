"""What an export writes into a model repository, and what is known of it."""
