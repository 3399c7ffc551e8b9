"""From file to network and back."""
