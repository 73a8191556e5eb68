"""`python -m service` is `posegate`."""

from service.cli import main

main()
