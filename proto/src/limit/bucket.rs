//! The lock-free bucket (limits.md §3).
