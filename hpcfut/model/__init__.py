"""Plain records that every layer shares: ids, task templates, failures, resources, configuration."""
