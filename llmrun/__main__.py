"""The command itself: ``llmrun`` and ``python -m llmrun``. Ctrl-C is met here while the rest is still imported."""

from __future__ import annotations

import sys

from llmrun.environment import begin_again_for_models


def main() -> int:
    """Run the command line; returns its exit code."""
    try:
        begin_again_for_models()
        from llmrun.cli.app import main as run
    except KeyboardInterrupt:
        from llmrun.errors import Interrupted

        stopped = Interrupted()
        sys.stderr.write(stopped.render() + "\n")
        return stopped.exit_code
    return run()


if __name__ == "__main__":
    sys.exit(main())
