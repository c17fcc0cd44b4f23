"""What the measurements in ``promises`` share: how much, a server under load, and its floor."""
