"""Conversations and rows: where they come from, how they are rendered, in which order they are drawn."""
