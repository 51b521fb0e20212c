"""The head: reads a config, plans its cases, dispatches them to devices and gathers one table."""
