"""What the service says of itself: call context, metrics, traces and logs."""
