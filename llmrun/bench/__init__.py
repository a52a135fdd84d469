"""What `llmrun bench` measures, and the forms in which it tells."""
