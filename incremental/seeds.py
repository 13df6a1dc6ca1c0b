"""A seed of its own for every use of chance, so that none depends on what ran before."""

import numpy as np


def derive_seed(seed: int, purpose: str, *numbers: int) -> int:
    """Return 32 bits that depend on all arguments and on nothing else."""
    words = [seed, *numbers, *purpose.encode()]
    return int(np.random.SeedSequence(words).generate_state(1)[0])
