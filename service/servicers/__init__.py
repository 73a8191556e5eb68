"""The RPC methods: messages to domain and back, nothing else.

May import: gRPC, protobuf, `pipeline` and everything below it.
"""
