"""What `tito job` does: make a request of the student's files, hand it to the service or to this machine, show what comes of it."""
