"""The docker sandbox: containers that wait, each for one program, and how the engine is talked to."""
