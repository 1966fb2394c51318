"""The process sandbox: namespaces, control groups or watched limits, and one warm process to fork from."""
