"""The capability tests: what a student can do after a module, proved against the student's own exports.

A checkpoint is a file of functions named `can_...`, each a few assertions with messages that say what was expected.
`run.py` runs them in a process of their own; `support.py` is what they share.
"""
