"""Seeds for every purpose, derived from the one a person chose."""

import numpy as np


def derive(seed: int, *purpose: str | int) -> int:
    """An independent 63-bit seed for a purpose: streams do not depend on the order of use.

    Purposes are told apart by their words joined together.
    """
    words = [seed, *(int.from_bytes(str(p).encode(), "big") for p in purpose)]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
