"""One file a framework, found by its name; nothing heavy is imported until a case asks for it."""
