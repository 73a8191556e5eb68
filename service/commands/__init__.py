"""What the command line does as a client: one file per command, each a plain coroutine."""
