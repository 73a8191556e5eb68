"""`posegate`, also as `python -m service`."""

import os


def main() -> None:
    """Entry point of the `posegate` command."""
    # gRPC reads it while it is imported. Unset, it prints a line for every handshake that fails: a port
    # scanner would fill the log, and callers would read it before the line that says what to change.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from service.cli.main import app

    app()


if __name__ == "__main__":
    main()
