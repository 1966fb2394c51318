"""What went wrong, as one sentence for people: nbgrader hands its pages whole tracebacks."""


def sentence(report):
    """The message of the exception that a traceback ends with; other text as it is."""
    text = str(report).strip()
    if not text:
        return "something went wrong, and nbgrader does not say what: the server's log may"
    if "Traceback" not in text:
        return text
    # the message is all that follows the last indented line; an exception's message may have several lines
    lines = text.splitlines()
    last = max((n for n, line in enumerate(lines) if line.startswith("  ")), default=-1)
    message = "\n".join(lines[last + 1:]).strip()
    name, colon, said = message.partition(": ")
    return said if colon and " " not in name else message


def without_traceback(outcome):
    """nbgrader's {"success", "error", "log"} with the sentence in place of the traceback, and none in the log."""
    if not outcome.get("error"):
        return outcome
    said = sentence(outcome["error"])
    log = str(outcome.get("log", "")).partition("Traceback (most recent call last)")[0].rstrip()
    return {**outcome, "error": said, "log": f"{log}\n{said}".strip() if said not in log else log}
