"""How the service, its workers and its clients fare, and what operators ask of workers."""
