"""Speed, as ratios of two things measured in turns in the same run. Nothing here is a test."""
