"""Domain objects to protobuf responses."""
