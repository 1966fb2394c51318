"""What tests ask: `checking`, are results the same and refusals clear; `gradcheck`, is a rule right; `memory`, how much does it need.

Where work is graded these are the instructor's, never those of a workspace.
"""
