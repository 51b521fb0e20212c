"""From YAML text to a frozen, fully checked config."""
