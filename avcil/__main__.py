"""`python -m avcil` is the command `avcil`."""

import sys


def main() -> None:
    """Run the command; Ctrl-C, also during the imports, is one line and exit status 130."""
    try:
        from avcil.runtime.stopping import end_at_once_on_interrupt

        end_at_once_on_interrupt()
        from avcil.cli import main as run

        run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
