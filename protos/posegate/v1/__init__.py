"""posegate.v1: the .proto files and the Python code that `scripts/protos` makes of them."""
