"""``python -m llmrun``."""

import sys

from llmrun.cli.app import main

sys.exit(main())
