"""Decides results: student code runs in a sandbox, and what it may cost is limited, measured and recorded."""
