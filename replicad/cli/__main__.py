"""``python -m replicad.cli``."""

import sys

from replicad.cli.main import main

sys.exit(main())
