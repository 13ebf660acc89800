"""The `rollover` command."""
