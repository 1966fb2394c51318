"""From a submission to a mark and its feedback: what nbgrader's own pages and commands find here."""
