"""The commands of `posegate`: one file a command, each with its own options."""
