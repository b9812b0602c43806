"""Stand-ins for receivers of further channels, as strict as the rules of each channel, and tests that they refuse.

Each is an HTTP server on loopback, written from the specifications and from the recorded behaviour of real receivers.
They verify with joserfc, not with the signer's library, and read the published keys over HTTP as a receiver does.
"""
