"""`python -m mlq_utils` is `mlq`."""

import sys

from mlq_utils.cli import main

sys.exit(main())
