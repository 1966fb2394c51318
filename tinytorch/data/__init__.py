"""Small real data that travels with the framework, for first contact and demonstrations without a network.

`digits.npz` is the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998, UCI
Machine Learning Repository, doi 10.24432/C50P49, CC BY 4.0): 1,797 digits of 8 x 8 pixels with values 0 to 16.
"""

from pathlib import Path

import numpy as np


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 handwritten digits: images (1797, 8, 8) float32 in 0..1, labels (1797,) int64 in 0..9."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as stored:
        return stored["images"].astype(np.float32) / 16, stored["labels"].astype(np.int64)
