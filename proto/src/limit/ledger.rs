//! The granter: who has been given how much of a counter's window (limits.md §2).
