"""How fast the whole worker is, against a bare script that does the same work: `python -m bench`, or `make bench`."""
