"""Environments of other packages, each as a `DeviceEnv`: one small file for each back-end."""
