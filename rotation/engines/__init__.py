"""The adapters for kinds of databases, one a file."""
