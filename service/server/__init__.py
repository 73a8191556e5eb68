"""The gRPC server: wiring, life cycle, interceptors, health and TLS."""
