"""How long `tito --help` takes as a whole process, beside a Python that does nothing: median of 15."""

import statistics
import subprocess
import time

from hub import paths

TARGET_SECONDS = 0.5


def seconds(*command: str, runs: int = 15) -> float:
    """Median wall time of the command, after one run that warms the file cache."""
    def once() -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start

    once()
    return statistics.median(once() for _ in range(runs))


def main() -> dict:
    python = str(paths.env_bin("user", "python"))
    ours, nothing = seconds(python, str(paths.STUDENT_EDITION / "bin" / "tito"), "--help"), seconds(python, "-c", "pass")
    return {"tito --help, s": round(ours, 3), "python -c pass, s": round(nothing, 3), "target, s": TARGET_SECONDS,
            "met": ours <= TARGET_SECONDS}


if __name__ == "__main__":
    print(main())
