"""Text encoding: which encoders run for a request, and the embeddings that are kept."""
