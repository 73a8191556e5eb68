"""The gRPC server: wiring, life cycle, interceptors, health and TLS.

May import: `servicers` and everything below it.
"""
