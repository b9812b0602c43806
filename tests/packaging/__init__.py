"""What is shipped beside the package: the image, the unit of systemd, the stack, the workflows."""
