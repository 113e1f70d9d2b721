"""The paper's tables: its protocols, its published figures, and ours beside them."""
