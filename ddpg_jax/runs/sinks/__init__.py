"""Followers of the record: what sends its rows to W&B, MLflow, trackio, each row once."""
