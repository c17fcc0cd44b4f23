"""Messages leave for endpoints and arrive from sources, in order per conversation."""
