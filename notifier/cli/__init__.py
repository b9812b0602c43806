"""The command line: one file a command group, arguments in, text out."""
