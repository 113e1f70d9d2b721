"""The methods, one file each: a function, and a frozen dataclass that says when the function runs."""
