"""How much CPU time this process has used, also where that is limited."""

import resource


def cpu_seconds() -> float:
    """Where CPU time is limited, as in a sandbox, Linux lets `time.process_time` go in steps of 4 ms; what is accounted does not."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
