"""Writes run directories as one self-contained HTML file."""
