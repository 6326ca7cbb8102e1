"""What a person looks at: statistics and pictures."""
