"""What the config declares held against what the probe found, device by device. Pure."""
