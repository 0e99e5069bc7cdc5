"""Dense weights under soft or forward masks."""
