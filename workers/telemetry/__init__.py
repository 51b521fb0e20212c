"""What an agent sees of a device and its host while its child measures."""
