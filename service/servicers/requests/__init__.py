"""Protobuf requests to domain objects."""
