"""Tables, figures and one-file pages from plain data, whatever the experiment."""
