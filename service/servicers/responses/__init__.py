"""Domain objects to protobuf responses.

May import: what `servicers` may import.
"""
