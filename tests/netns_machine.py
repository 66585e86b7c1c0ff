"""One of the machines of test_machines.py: `run_recbole_gr.py` with a shorter allowance."""

import os
import sys

from recbole_gr.distributed import liveness

liveness.ALLOWANCE = int(os.environ["TEST_ALLOWANCE"])  # also where a spawned process imports this

if __name__ == "__main__":
    from run_recbole_gr import main

    sys.exit(main())
