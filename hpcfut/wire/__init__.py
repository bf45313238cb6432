"""What crosses a rank boundary: messages, their frames, and pickled values."""
