"""Several tokens from each pass: drafts, and the passes that say which of them the model itself would have chosen."""
