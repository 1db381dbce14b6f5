"""The page of ``python -m client page``; the only part of the client that needs gradio."""
