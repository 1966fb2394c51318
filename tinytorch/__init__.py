"""TinyTorch: a small deep-learning framework on NumPy that its students write themselves, module by module.

`tinytorch.core` holds one file per module of the course. In a student's workspace it is the student's own code.
`given` is what modules are given and `fast` what makes them fast; the files beside them are for whoever trains networks.
"""

__version__ = "0.1.0"
