"""What the Makefile runs: scripts of their own, which nothing imports but their tests."""
