"""``python -m replicad``: the same as the ``replicad`` command."""

import sys

from replicad.app import main

sys.exit(main())
