"""What tests ask: `checking`, are results the same; `gradcheck`, is a rule right; `memory` and `clock`, how much does it need.

Where work is graded these are the instructor's, never those of a workspace.
"""
