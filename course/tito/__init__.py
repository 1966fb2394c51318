"""The command line `tito`: everything a student, an instructor or a lone learner does from a terminal."""
