"""The settings as pydantic models, and the reading of the configuration file.

Open `service_settings.py` first (all sections), then `config_file.py` (file and environment variables).
"""
