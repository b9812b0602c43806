"""A real Vault: built once, started in memory by each test that wants one."""
