"""Protobuf requests to domain objects.

May import: what `servicers` may import.
"""
