"""What answers over HTTP: to Vercel, which asks for rotations."""
