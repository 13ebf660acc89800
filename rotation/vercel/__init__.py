"""Vercel as the holder of secrets: the push and its outcomes, templates, tokens."""
