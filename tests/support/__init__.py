"""What tests start and share: brokers, servers, certificates, receivers."""
