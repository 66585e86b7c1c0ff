"""A trained model in use: restored, asked, exported, given new items."""
