"""The commands behind the scripts."""
