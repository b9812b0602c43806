"""What operators see and do, for the command line and the API alike."""
