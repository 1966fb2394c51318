"""Places where student code runs, behind one interface: see base.Sandbox."""
