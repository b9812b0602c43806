"""What operators do, for the command line and the API alike."""
