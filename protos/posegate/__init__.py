"""The gRPC contract of Posegate, one package for each version."""
