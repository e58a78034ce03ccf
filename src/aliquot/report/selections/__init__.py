"""What each arm selected, measured."""
