"""From results to one table, and from the table to every form people read."""
