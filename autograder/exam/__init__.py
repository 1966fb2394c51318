"""Tests on this side, a student's objects in the sandbox: what is said between the two, and who says it."""
