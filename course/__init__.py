"""What is taught: the curriculum, the modules' sources, the checkpoints, the build and the command line `tito`."""
