"""Run directories to one self-contained HTML file."""
