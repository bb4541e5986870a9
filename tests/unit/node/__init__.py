"""The DaemonSet's program, over the table in memory and an API server in memory."""
