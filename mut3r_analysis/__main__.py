"""``python -m mut3r_analysis`` is the ``mut3r`` command."""

import sys

from mut3r_analysis.cli import main

sys.exit(main())
