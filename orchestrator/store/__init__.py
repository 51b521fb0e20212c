"""Where results are kept: durable, one transaction a result."""
