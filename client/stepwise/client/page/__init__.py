"""The web page of ``stepwise page``; the only part of the client that needs gradio."""
