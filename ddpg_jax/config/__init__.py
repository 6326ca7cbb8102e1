"""From a TOML file and words to one frozen Config; in what two of them differ."""
