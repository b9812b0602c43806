"""What commands share: text, tables, help, options, and the way to the configuration and to the queue."""
