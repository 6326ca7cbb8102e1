"""The device loop: environment, replay and update in one program. No input or output of files."""
