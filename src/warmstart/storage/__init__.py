"""What is kept on disk so that no kill, crash or full disk loses more than the work in hand."""
