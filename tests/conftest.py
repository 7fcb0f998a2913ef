"""All tests run on one thread: what is compared to the bit must not depend on how many there are."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for every process that a test starts
