"""Features of videos, one vector per second, in the YouTube-8M format."""
