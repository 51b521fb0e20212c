"""The head's brain: which case goes to which device, when to give up, and when all is done. Pure."""
