"""How time passes: from a configuration to a trained run."""
