"""One byte each: what a supervisor and its examiner say to each other. Apart, so that neither loads the other for it."""

TEST, ANSWER = b"t", b"a"                # what an examiner is told: run the test of this id, here is the answer
ASK, DONE, FORGED = b"?", b"!", b"x"     # what it says: a question for the sandbox, the test's outputs, that was no answer
