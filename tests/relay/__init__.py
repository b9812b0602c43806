"""The relay with real identity servers, real clients and a real proxy."""
