"""From data to noise: schedules, and what a network predicts along them."""
