"""One outside thing in each file: the broker, the embedded queue, HTTP, keys, files, metrics, logs."""
