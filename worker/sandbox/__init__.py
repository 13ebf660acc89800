"""A local Vercel, a local PostgreSQL and a local broker, for the demo, rehearsals and tests."""
