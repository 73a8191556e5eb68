"""Commands that bring models into the repository: one file a command, each with its own options."""
