"""One thread a test process: on a busy machine the libraries take fewer threads than asked, and sums change order."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
