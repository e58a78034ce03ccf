"""W&B dashboards of a sweep."""
