"""From a person's own videos to features by second in the YouTube-8M format, and from features to answers."""
